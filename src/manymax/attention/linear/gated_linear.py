"""Gated linear attention: a learnt decay of each channel of each token."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import HeadLinear, HeadNorm, OutputGate, widened
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices
from manymax.attention.options import check_positive

RANK = 16  # of the gate's two matrices, as in the paper


class GatedLinear(LinearAttention):
    r"""Attend through a state each channel of which every token lets fade by its own gate.

    $$S_t = \mathrm{diag}(\alpha_t) S_{t-1} + k_t v_t^\top, \quad
    \alpha_t = \sigma(W_2 W_1 v_t + b)^{1/\tau}, \quad
    o_t = \mathrm{norm}(S_t^\top q_t / \sqrt{d}) \odot \mathrm{SiLU}(W v_t)$$

    where $q_t$, $k_t$ and $v_t$ are a token's query, key and value, $S_t$ is the state, $\alpha_t$ the decay of each of
    its d rows, $\sigma$ the logistic function, $\tau$ the gate's temperature, and norm divides a head's output by its
    root mean square, times a learnt gain. The paper computes gates from the token's features, here they read its value.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        temperature: of the decay; the higher, the slower the state fades.
        gate: whether the output is gated.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if the temperature is not positive.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("gated-linear", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Yang et al., 2023, Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv:2312.06635.
    """

    choices = Choices("identity", "learnt, one a channel", "adds", "RMS of a head", "Dk Dv", "output gate")

    def __init__(
        self, *, head_dim: int, num_heads: int, temperature: float = 16.0, gate: bool = True, **options: Any
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        check_positive(temperature=temperature)
        self.temperature = temperature
        rank = min(RANK, self.value_dim)
        self.forget = nn.Sequential(
            HeadLinear(num_heads, self.value_dim, rank), HeadLinear(num_heads, rank, head_dim, bias=True)
        )
        self.norm = HeadNorm(num_heads, self.value_dim)
        self.gate = OutputGate(num_heads, self.value_dim) if gate else None

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return scaled queries and each channel's decay."""
        del positions
        log_decay = F.logsigmoid(widened(self.forget(value))) / self.temperature
        return Streams(query * self.head_dim**-0.5, key, value, log_decay)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output normalised and gated."""
        del streams
        out = self.norm(out)
        return out if self.gate is None else self.gate(out, value)
