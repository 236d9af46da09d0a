"""Selective dense state spaces: every token picks a mixture of a few dense transition matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax._names import closest
from manymax.attention.linear.parts import HeadLinear, per_head
from manymax.attention.mechanism import CausalMechanism, Choices, both_ways, one_each
from manymax.attention.options import check_sizes, value_width
from manymax.attention.recurrent.scan import prefix_scan
from manymax.attention.state import State
from manymax.maps.rule import check_option

FORMS = ("sequential", "scan")
CHUNK = 32  # tokens whose transition matrices exist at once
LARGE = 1e15  # beyond it states are scaled before LayerNorm: their squares would leave float32 at 2e19


@dataclass(frozen=True)
class DenseState(State):
    """What a dense state space keeps.

    Attributes:
        hidden: h, (B, H, n, 1), in float32 at least.
    """

    hidden: Tensor


class SelectiveDense(CausalMechanism):
    r"""Read a state that every token multiplies by a dense matrix of its own choice.

    $$h_t = A(x_t)\, h_{t-1} + B x_t, \qquad y_t = W \mathrm{LayerNorm}(h_t) + c, \qquad
    A(x) = \operatorname{norm}_p\Bigl(\sum_{k=1}^{K} \alpha_k(x)\, A_k\Bigr), \qquad
    \alpha(x) = \operatorname{softmax}(S x + s)$$

    where $x_t$ is a token's query, key and value side by side (the paper's features, of which these are linear maps),
    $h_t$ (n) a head's state, zero before the first token, $A_k$ are K learnt dense matrices (n, n), and
    $\mathrm{norm}_p$ divides each column by its p-norm. B, W, c, S and s are learnt, a set a head. One layer can follow
    any automaton of at most n states.

    Products of transitions are bounded for p = 1, where none lengthens the sum of |h|. For p > 1 one can do so up to
    $n^{1-1/p}$ times a token, as with equal entries: $n^{1/6}$ for p = 1.2, which is 1.6 for n = 16. Trained on
    automata, norms of h grew 4e13 to 1.4e15 times from token 40 to token 500 (the claim `sd-ssm`). LayerNorm keeps
    outputs right at any size of h, but from where h passes its dtype's largest number, 3e38 in float32, they are NaN.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        state_size: n; None is head_dim.
        num_matrices: K.
        power: p, at least 1.
        form: "sequential" goes token by token, "scan" merges transitions in log2 N steps, of n^3 a token instead of
            n^2. It changes no result.
        value_dim: the last dim of values and outputs; None is head_dim.

    Raises:
        ValueError: if a number is out of range or the form is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("sd-ssm", head_dim=16, num_heads=2, state_size=8)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> out.shape, state.hidden.shape
        (torch.Size([1, 2, 10, 16]), torch.Size([1, 2, 8, 1]))

    Source:
        Terzić et al., 2024, On the Expressiveness and Length Generalization of Selective State-Space Models on Regular
        Languages, arXiv:2412.19350. In the released code too B has no bias, and entries of the matrices start uniform
        within sqrt(6 / (2 n)); its p is 1.2 to 1.4, by task.
    """

    family = "recurrent"
    choices = Choices("learnt, linear", "dense matrix a token", "adds", "columns' p-norm, LayerNorm", "n")

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        state_size: int | None = None,
        num_matrices: int = 4,
        power: float = 1.2,
        form: str = "sequential",
        value_dim: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        size = head_dim if state_size is None else state_size
        check_sizes(state_size=size, num_matrices=num_matrices)
        check_option("power", power, lambda x: x >= 1, "at least 1")
        if form not in FORMS:
            raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}{closest(form, FORMS)}")
        self.power, self.form = power, form
        width = self.fixed_value_dim = value_width(value_dim, head_dim)
        self.select = HeadLinear(num_heads, 2 * head_dim + width, num_matrices, bias=True)
        self.write = HeadLinear(num_heads, 2 * head_dim + width, size)
        bound = (6 / (2 * size)) ** 0.5
        self.matrices = nn.Parameter(torch.empty(num_heads, num_matrices, size, size).uniform_(-bound, bound))
        self.gain = nn.Parameter(torch.ones(num_heads, 1, size))
        self.offset = nn.Parameter(torch.zeros(num_heads, 1, size))
        self.read = HeadLinear(num_heads, size, width, bias=True)

    def transitions(self, x: Tensor) -> Tensor:
        """Return A of each token, (B, H, N, n, n), for features x (B, H, N, 2 D + Dv); columns have p-norm 1."""
        mixed = torch.einsum("bhtk,hknm->bhtnm", self.select(x).softmax(-1), self.matrices.to(x.dtype))
        norms = torch.linalg.vector_norm(mixed, ord=self.power, dim=-2, keepdim=True)
        normal: Tensor = mixed / norms.clamp(min=torch.finfo(x.dtype).tiny)
        return normal

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: DenseState | None
    ) -> tuple[Tensor, DenseState]:
        """Return the outputs and the state after the last token."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        x = torch.cat([query, per_head(key, self.num_heads), per_head(value, self.num_heads)], -1).to(dtype)
        hidden = x.new_zeros(*x.shape[:2], self.gain.shape[2], 1) if state is None else state.hidden.to(dtype)
        inputs, outs = self.write(x)[..., None], []
        for start in range(0, x.shape[2], CHUNK):
            here = slice(start, start + CHUNK)
            moves, added = self.transitions(x[:, :, here]), inputs[:, :, here]
            if keep is not None:
                where = keep[:, None, here, None, None]
                moves = torch.where(where, moves, torch.eye(moves.shape[-1], dtype=dtype, device=moves.device))
                added = torch.where(where, added, 0)
            states = self._follow(moves, added, hidden)
            hidden = states[:, :, -1]
            outs.append(states[..., 0])
        states = torch.cat(outs, 2) if outs else inputs[..., 0]
        scale = (states.detach().abs().amax(-1, keepdim=True) / LARGE).clamp(min=1)
        normal = F.layer_norm(states / scale, states.shape[-1:]) * self.gain.to(dtype) + self.offset.to(dtype)
        return self.read(normal).to(query.dtype), DenseState(hidden)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the mean of two scans, one in each direction."""
        one_each(query, key)
        return both_ways(self.scan, (query, key, value), keep)

    def _follow(self, moves: Tensor, added: Tensor, hidden: Tensor) -> Tensor:
        """Return the states (B, H, N, n, 1) after each token of a chunk."""
        if self.form == "scan":
            whole, states = prefix_scan(_compose, (moves, added))
            return states + whole @ hidden[:, :, None]
        followed = []
        for move, add in zip(moves.unbind(2), added.unbind(2), strict=True):
            hidden = move @ hidden + add
            followed.append(hidden)
        return torch.stack(followed, 2)


def _compose(first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the affine map that does one and then the other."""
    return then[0] @ first[0], then[0] @ first[1] + then[1]
