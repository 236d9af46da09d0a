"""Retention: linear attention with a fixed decay a head."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import HeadNorm, OutputGate, fixed_decay
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices


class Retention(LinearAttention):
    r"""Attend with products that fade with distance, at a rate of each head.

    $$o_i = \mathrm{norm}\Bigl(\frac{1}{\sqrt{d}} \sum_{j \le i} \gamma_h^{i-j} (q_i \cdot k_j) v_j\Bigr)
    \odot \mathrm{SiLU}(W_h v_i), \qquad \gamma_h = 1 - 2^{-5-h}$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, d is head_dim, h counts heads from 0 and norm divides a
    head's output by its root mean square. The paper turns queries and keys by their positions before (xPos), which
    here is a model's part.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        gate: whether the output is gated.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("retention", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> state.memory.shape
        torch.Size([1, 2, 16, 16])

    Source:
        Sun et al., 2023, Retentive Network: A Successor to Transformer for Large Language Models, arXiv:2307.08621. Its
        group norm subtracts no mean in the released code either (RMSNorm of each head).
    """

    choices = Choices("identity", "fixed, one a head", "adds", "RMS of a head", "Dk Dv", "output gate")
    rotary = True

    def __init__(self, *, head_dim: int, num_heads: int, gate: bool = True, **options: Any) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        self.log_decay = [math.log1p(-(2.0 ** (-5 - head))) for head in range(num_heads)]
        self.norm = HeadNorm(num_heads, self.value_dim, learnt=False)
        self.gate = OutputGate(num_heads, self.value_dim) if gate else None

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return scaled queries and each head's decay."""
        del positions
        return Streams(query * self.head_dim**-0.5, key, value, fixed_decay(self.log_decay, value))

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output normalised and gated."""
        del streams
        out = self.norm(out)
        return out if self.gate is None else self.gate(out, value)
