"""Mamba-2's state space duality: the step size both lets the state fade and weighs what is written."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.delta import TokenDecay
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import HeadNorm, OutputGate, per_head
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices


class Mamba2(LinearAttention):
    r"""Attend through a selective state space: every token chooses a step, by which the state fades and is written to.

    $$S_t = e^{-A \Delta_t} S_{t-1} + \Delta_t k_t v_t^\top, \qquad
    o_t = \mathrm{norm}\bigl((S_t^\top q_t + D v_t) \odot \mathrm{SiLU}(W v_t)\bigr), \qquad
    \Delta_t = \mathrm{softplus}(u \cdot v_t + c)$$

    where $q_t$ (the paper's C), $k_t$ (its B) and $v_t$ (its x) are a token's query, key and value after a short
    convolution and SiLU, $S_t$ is the state, $\Delta_t$ a head's step, A > 0 its rate, D the weight of a way past the
    state, all learnt, and norm divides a head's output by its root mean square, times a learnt gain. The paper computes
    step and gate from the token's features, here the step reads the value after the convolution and the gate the value
    before.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        conv_size: tokens that the convolution sees; 0 leaves it out.
        **options: `value_dim`, `chunk_size` and `backend`, as for every mechanism of this family.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("mamba2", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Dao and Gu, 2024, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
        Space Duality, arXiv:2405.21060. The released code normalises all heads together or in groups; here each head
        is a group.
    """

    choices = Choices(
        "SiLU", "learnt, one a token", "adds, weighed by the step", "RMS of a head", "Dk Dv + 3 (2 Dk + Dv)",
        "short convolution, way past the state, output gate",
    )  # fmt: skip

    def __init__(self, *, head_dim: int, num_heads: int, conv_size: int = 4, **options: Any) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, conv_size=conv_size, **options)
        self.decay = TokenDecay(num_heads, self.value_dim)
        self.past = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.gate = OutputGate(num_heads, self.value_dim)
        self.norm = HeadNorm(num_heads, self.value_dim)

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return queries, keys, values times the step, and the decay of each token."""
        del positions
        log_decay, step = self.decay(value)
        key = per_head(F.silu(key), self.num_heads) * step[..., None].to(key.dtype)
        return Streams(F.silu(query), key, F.silu(value), log_decay)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output with the way past the state, gated and normalised."""
        past = self.past.to(out.dtype) * per_head(streams.value, self.num_heads)
        normal: Tensor = self.norm(self.gate(out + past, value))
        return normal
