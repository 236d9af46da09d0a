"""Attention as regression at test time: a function class, weights of the tokens, and a solver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax._names import closest
from manymax.attention.cache import TokenCache, remember
from manymax.attention.dense.api import attention
from manymax.attention.dense.local_linear_attention import local_fit
from manymax.attention.linear.features import unit
from manymax.attention.linear.parts import HeadLinear, ShortConvolution, per_head, widened
from manymax.attention.linear.recurrence import linear_attention
from manymax.attention.mechanism import CausalMechanism, Choices, both_ways
from manymax.attention.options import check_positive, check_sizes, value_width
from manymax.attention.recurrent.regression import least_squares
from manymax.attention.state import State

SOLVERS = ("exact", "no-covariance", "gradient", "local-constant", "local-linear")
FORMS = ("chunked", "woodbury")


@dataclass(frozen=True)
class RegressionState(State):
    """What a regression keeps of the tokens so far.

    Attributes:
        memory: the weighted sum of k v', (B, H, D, Dv), or after gradient steps the map itself; None for local fits.
        gram: the weighted sum of k k' and the ridge, (B, H, D, D), of the exact solver alone.
        cache: all tokens, for local fits alone.
        tail: the last keys, which a shift still sees, (B, H, size - 1, D).
    """

    memory: Tensor | None
    gram: Tensor | None
    cache: TokenCache | None
    tail: Tensor | None


class TestTimeRegression(CausalMechanism):
    r"""Attend by what a regression of values on keys, fitted to the tokens so far, says at the query.

    $$o_t = m_t(q_t), \qquad m_t = \arg\min_m \tfrac{1}{2} \sum_{i \le t} \gamma_i^{(t)} \lVert v_i - m(k_i) \rVert^2,
    \qquad \gamma_i^{(t)} = \prod_{j = i + 1}^{t} a_j$$

    where $q_t$, $k_i$ and $v_i$ are queries, keys and values, and $a_j$ in (0, 1] a token's forgetting. With linear
    maps, "exact" gives $m_t(q) = V^\top \Gamma K (K^\top \Gamma K + \lambda I)^{-1} q$, whose ridge fades as the tokens
    do; "no-covariance" takes the matrix of keys for the identity, which is linear attention with decay; "gradient"
    makes one step a token, $M_t = a_t M_{t-1} (I - b_t k_t k_t^\top) + b_t v_t k_t^\top$, the delta rule. With a
    polynomial around each query and weights $\exp(c\, q \cdot k_i)$, "local-constant" is softmax attention, and
    "local-linear" its extension to degree 1, with a ridge.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        solver: "exact", "no-covariance", "gradient", "local-constant" or "local-linear".
        forgetting: whether $a_t$ is learnt, the logistic function of a linear map of the token's value, near 1 at the
            start; else it is 1. Of linear maps alone.
        ridge: $\lambda$ at the start, a number a head; its logarithm is learnt. Of "exact" and "local-linear".
        implicit: whether the gradient step is that of the new map instead of the old, $b / (1 + b \lVert k \rVert^2)$,
            as in Longhorn.
        qk_norm: whether queries and keys are scaled to length 1; scores of local fits are then scaled by a learnt c
            that starts at sqrt(head_dim), else by 1 / sqrt(head_dim).
        shift_keys: tokens that a learnt convolution of the keys sees; it starts as a shift by one, which pairs each
            value with the key before, so that one layer recalls what followed. 0 is none.
        form: of "exact": "chunked" solves a system a token, "woodbury" updates the inverse. It changes no result.
        value_dim: the last dim of values; None is head_dim. Only forgetting and gradient steps ask for it.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or forgetting is asked of a local fit.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("test-time-regression", head_dim=8, num_heads=2, ridge=0.1)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 8).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> state.gram.shape
        torch.Size([1, 2, 8, 8])

    Source:
        Wang et al., 2025, Test-time regression: a unifying framework for designing sequence models with associative
        memory, arXiv:2501.12352. Exact: also von Oswald et al., 2023, Uncovering mesa-optimization algorithms in
        Transformers, arXiv:2309.05858; implicit: Liu et al., 2024, Longhorn, arXiv:2407.14207.
    """

    __test__ = False  # no test case, whatever pytest makes of its name
    family = "recurrent"
    choices = Choices(
        "length 1",
        "none, or learnt, one a token",
        "least squares, sum, delta rule or local fit",
        "covariance of keys",
        "Dk (Dk + Dv), or Dk Dv without covariance, or N (Dk + Dv) with local fits",
        "shift of keys",
    )

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        solver: str = "exact",
        forgetting: bool = False,
        ridge: float = 1.0,
        implicit: bool = False,
        qk_norm: bool = True,
        shift_keys: int = 0,
        form: str = "chunked",
        value_dim: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        for name, given, known in (("solver", solver, SOLVERS), ("form", form, FORMS)):
            if given not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}{closest(given, known)}")
        check_positive(ridge=ridge)
        check_sizes(0, shift_keys=shift_keys)
        if forgetting and solver.startswith("local"):
            raise ValueError(f"forgetting: expected False beside solver={solver!r}, which weighs by distance")
        self.solver, self.implicit, self.qk_norm, self.form = solver, implicit, qk_norm, form
        width = value_width(value_dim, head_dim)
        self.shift = ShortConvolution(num_heads, head_dim, shift_keys) if shift_keys else None
        if self.shift is not None:
            nn.init.zeros_(self.shift.weight)
            self.shift.weight.data[:, :, min(1, shift_keys - 1)] = 1
        self.forget = HeadLinear(num_heads, width, 1, bias=True) if forgetting else None
        if self.forget is not None and self.forget.bias is not None:
            nn.init.constant_(self.forget.bias, 4.0)  # half forgotten after 38 tokens
        self.rate = HeadLinear(num_heads, width, 1, bias=True) if solver == "gradient" else None
        has_ridge = solver in {"exact", "local-linear"}
        self.log_ridge = nn.Parameter(torch.full((num_heads, 1, 1), float(ridge)).log()) if has_ridge else None
        local = solver.startswith("local")
        self.log_scale = nn.Parameter(torch.full((num_heads, 1, 1), head_dim**0.5).log()) if local and qk_norm else None

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: RegressionState | None
    ) -> tuple[Tensor, RegressionState]:
        """Return the outputs and the state after the last token."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        before = RegressionState(None, None, None, None) if state is None else state.computed_in(dtype)
        q, k, tail = self._tokens(query, key, keep, before.tail)
        if self.solver.startswith("local"):
            cache = remember(before.cache, k, value, keep)
            out = self._local(q, cache, is_causal=True)
            return out.to(query.dtype), RegressionState(None, None, cache, tail)
        v, decay = per_head(value, self.num_heads).to(k.dtype), self._decay(value, keep)
        if self.solver == "exact":
            gram = self._ridge(k) if before.gram is None else before.gram
            out, gram, memory = least_squares(q, k, v, decay, gram, before.memory, self.form)
            return out.to(query.dtype), RegressionState(memory, gram, None, tail)
        rate = self._rate(k, value)
        out, memory = linear_attention(q, k, v, log_decay=decay, beta=rate, initial_state=before.memory)
        return out.to(query.dtype), RegressionState(memory, None, None, tail)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys: one fit to all, unless tokens' order matters."""
        if self.shift is not None or self.forget is not None or self.solver == "gradient":
            return both_ways(self.scan, (query, key, value), keep)
        q, k, _ = self._tokens(query, key, keep, None)
        if self.solver.startswith("local"):
            return self._local(q, remember(None, k, value, keep), is_causal=False).to(query.dtype)
        memory = k.transpose(2, 3) @ per_head(value, self.num_heads).to(k.dtype)
        if self.solver == "exact":
            memory = torch.linalg.solve(self._ridge(k) + k.transpose(2, 3) @ k, memory)
        return (q @ memory).to(query.dtype)

    def _tokens(
        self, query: Tensor, key: Tensor, keep: Tensor | None, tail: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return queries and keys of each query head in float32 at least, zero at padding, and the keys' tail."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        query, key = query.to(dtype), per_head(key, self.num_heads).to(dtype)
        if self.shift is not None:
            key, tail = self.shift(key, tail, keep)
        if self.qk_norm:
            query, key = unit(query), unit(key)
        if keep is not None:
            key = torch.where(keep[:, None, :, None], key, 0)
        return query, key, tail

    def _local(self, query: Tensor, cache: TokenCache, *, is_causal: bool) -> Tensor:
        scale: Tensor | float = self.head_dim**-0.5
        if self.log_scale is not None:
            scale = self.log_scale.to(query.dtype).exp()
        value = per_head(cache.value, self.num_heads).to(query.dtype)
        if self.log_ridge is None:
            out: Tensor = attention(
                query * scale,
                cache.key,
                value,
                attn_mask=cache.keep[:, None, None],
                is_causal=is_causal,
                causal_align="bottom-right",
                scale=1.0,
            )
            return out
        ridge = self.log_ridge.to(query.dtype).exp()
        return local_fit(query, TokenCache(cache.key, value, cache.keep), is_causal=is_causal, scale=scale, ridge=ridge)

    def _decay(self, value: Tensor, keep: Tensor | None) -> Tensor | None:
        """Return log a, (B, H, N), 0 at padding; None without forgetting."""
        if self.forget is None:
            return None
        decay = F.logsigmoid(widened(self.forget(value)[..., 0]))
        return decay if keep is None else torch.where(keep[:, None], decay, 0)

    def _rate(self, key: Tensor, value: Tensor) -> Tensor | None:
        """Return b, (B, H, N); a key of zeros, as at padding, makes no step whatever the rate."""
        if self.rate is None:
            return None
        rate = torch.sigmoid(self.rate(value)[..., 0]).to(key.dtype)
        return rate / (1 + rate * key.square().sum(-1)) if self.implicit else rate

    def _ridge(self, key: Tensor) -> Tensor:
        """Return the matrix that a regression starts from, (B, H, D, D)."""
        assert self.log_ridge is not None  # of the exact solver
        eye = torch.eye(self.head_dim, dtype=key.dtype, device=key.device)
        return (self.log_ridge.to(key.dtype).exp() * eye).expand(key.shape[0], -1, -1, -1)
