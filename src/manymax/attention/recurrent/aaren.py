"""Attention as an RNN: a learnt query, so that softmax attention needs a state of constant size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manymax.attention.linear.parts import per_head
from manymax.attention.mechanism import CausalMechanism, Choices
from manymax.attention.recurrent.scan import NOTHING, merge_softmax, prefix_scan
from manymax.attention.state import State, continues


@dataclass(frozen=True)
class AarenState(State):
    """The softmax of all tokens so far, in float32 at least.

    Attributes:
        largest: m, the largest score, (B, H, 1, 1).
        total: u, the sum of exp(score - m), (B, H, 1, 1).
        weighted: w, the sum of exp(score - m) v, (B, H, 1, Dv).
    """

    largest: Tensor
    total: Tensor
    weighted: Tensor


class Aaren(CausalMechanism):
    r"""Attend to all tokens so far from a query that each head has learnt, by a prefix scan or token by token.

    $$o_t = \frac{w_t}{u_t}, \qquad (m_t, u_t, w_t) = (m_{t-1}, u_{t-1}, w_{t-1}) \oplus (s_t, 1, v_t), \qquad
    s_t = \frac{q_h \cdot k_t}{\sqrt{d}}$$

    $$(m_A, u_A, w_A) \oplus (m_B, u_B, w_B) = (m,\; u_A e^{m_A - m} + u_B e^{m_B - m},\;
    w_A e^{m_A - m} + w_B e^{m_B - m}), \qquad m = \max(m_A, m_B)$$

    where $q_h$ is the learnt query of head h, $k_t$ and $v_t$ are a token's key and value, and d is head_dim. The
    operator is associative. Tokens' own queries take no part, and their gradient is zero. Without a causal mask all
    tokens get the same output, that of the last.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        form: how the scan goes: "hillis-steele", "blelloch" or "sequential". It changes no result.

    Raises:
        ValueError: if the form is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("aaren", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> out.shape, state.weighted.shape
        (torch.Size([1, 2, 10, 16]), torch.Size([1, 2, 1, 16]))

    Source:
        Feng et al., 2024, Attention as an RNN, arXiv:2405.13956. There is no official code; two third-party
        repositories leave the scale out.
    """

    family = "recurrent"
    choices = Choices("identity, learnt query", "none", "adds", "sum of weights", "Dv + 2", "prefix scan")
    reads_query = False

    def __init__(self, *, head_dim: int, num_heads: int, form: str = "hillis-steele") -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        self.query = nn.Parameter(torch.randn(num_heads, head_dim, 1))
        self.form = form
        one = torch.zeros(1, 1, 1, 1)
        prefix_scan(merge_softmax, (one, one, one), form)  # refuses a form that is unknown

    def leaves(self, key: Tensor, value: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return each token's own (score, weight, weighted value), the scan's items; padding weighs nothing."""
        dtype = torch.promote_types(key.dtype, torch.float32)
        key, value = per_head(key, self.num_heads).to(dtype), per_head(value, self.num_heads).to(dtype)
        score = key @ self.query.to(dtype) * self.head_dim**-0.5
        largest = score.detach()  # an output does not depend on it
        weight = (score - largest).exp()  # 1, with the score's gradient
        if keep is not None:
            where = keep[:, None, :, None]
            largest, weight = torch.where(where, largest, NOTHING), torch.where(where, weight, 0)
        return largest, weight, weight * value

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: AarenState | None
    ) -> tuple[Tensor, AarenState]:
        """Return the outputs and the state after the last token."""
        items = self.leaves(key, value, keep)
        if state is not None:
            continues(state.weighted, items[2])
            before = (state.largest, state.total, state.weighted)
            items = tuple(torch.cat(pair, 2) for pair in zip(before, items, strict=True))  # type: ignore[assignment]
        elif not key.shape[2]:
            empty = items[1].new_zeros(*items[1].shape[:2], 1, 1)
            items = (empty + NOTHING, empty, empty.expand(-1, -1, -1, value.shape[3]))
        largest, total, weighted = prefix_scan(merge_softmax, items, self.form)
        last = AarenState(largest[:, :, -1:], total[:, :, -1:], weighted[:, :, -1:])
        out = quotient(weighted, total)[:, :, weighted.shape[2] - key.shape[2] :]
        return self._beside(query, out), last

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the output of all tokens, once for each query."""
        largest, weight, weighted = self.leaves(key, value, keep)
        shifted = (largest - largest.amax(2, keepdim=True)).exp() if key.shape[2] else largest
        total, weighted = (weight * shifted).sum(2, keepdim=True), (weighted * shifted).sum(2, keepdim=True)
        return self._beside(query, quotient(weighted, total).expand(-1, -1, query.shape[2], -1))

    def _beside(self, query: Tensor, out: Tensor) -> Tensor:
        """Return outputs of which queries have a gradient, zero."""
        return out.to(query.dtype) + 0 * query.sum(-1, keepdim=True)


def quotient(weighted: Tensor, total: Tensor) -> Tensor:
    """Return the weighted mean, 0 where there is no weight."""
    return torch.where(total > 0, weighted / torch.where(total > 0, total, 1), 0)
