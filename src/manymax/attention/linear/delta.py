"""The delta rule, plain and gated: a write replaces what the state holds at its key."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.features import unit
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import HeadLinear, HeadNorm, OutputGate, inverse_softplus, log_uniform, widened
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices


class Delta(LinearAttention):
    r"""Attend through a state in which a token replaces what is stored at its key.

    $$S_t = (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad
    o_t = \mathrm{norm}(S_t^\top q_t / \sqrt{d}), \qquad \beta_t = \sigma(w \cdot v_t + b)$$

    where $q_t$ and $k_t$ are a token's query and key, each after a short convolution and SiLU scaled to length 1, $v_t$
    its value after the same convolution and SiLU, $S_t$ the state, $\beta_t$ how far a write replaces, d is head_dim
    and norm divides a head's output by its root mean square, times a learnt gain. The paper computes $\beta_t$ from the
    token's features, here it reads the value after the convolution.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        conv_size: tokens that the convolution sees; 0 leaves it and SiLU of values out.
        negative: whether $\beta_t$ goes up to 2, so that the transition may have eigenvalues down to -1.
        **options: `value_dim`, `chunk_size` and `backend`, as for every mechanism of this family.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("delta", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Schlag et al., 2021, Linear Transformers Are Secretly Fast Weight Programmers, arXiv:2102.11174, in the form of
        Yang et al., 2024, Parallelizing Linear Transformers with the Delta Rule over Sequence Length, arXiv:2406.06484;
        negative: Grazzi et al., 2024, Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues,
        arXiv:2411.12537.
    """

    choices = Choices(
        "SiLU, length 1", "none", "delta rule", "RMS of a head", "Dk Dv + 3 (2 Dk + Dv)", "short convolution"
    )

    def __init__(
        self, *, head_dim: int, num_heads: int, conv_size: int = 4, negative: bool = False, **options: Any
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, conv_size=conv_size, **options)
        self.strength = 2.0 if negative else 1.0
        self.write = HeadLinear(num_heads, self.value_dim, 1, bias=True)
        self.norm = HeadNorm(num_heads, self.value_dim)

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return directions of queries and keys, values and how far a write replaces."""
        del positions
        query, key = unit(F.silu(query)) * self.head_dim**-0.5, unit(F.silu(key))
        beta = self.strength * torch.sigmoid(self.write(value)[..., 0])
        return Streams(query, key, value if self.conv is None else F.silu(value), None, beta)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output normalised."""
        del streams, value
        normal: Tensor = self.norm(out)
        return normal


class GatedDelta(Delta):
    r"""Attend through a state that fades by a gate and in which a token replaces what is stored at its key.

    $$S_t = \alpha_t (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad
    o_t = \mathrm{norm}(S_t^\top q_t / \sqrt{d}) \odot \mathrm{SiLU}(W v_t), \qquad
    \alpha_t = \exp(-A\, \mathrm{softplus}(u \cdot v_t + c))$$

    where $\alpha_t$ in (0, 1) is a head's decay with a learnt rate A > 0, and all else is as in `delta`: $q_t$ and
    $k_t$ are a token's query and key, each after a short convolution and SiLU scaled to length 1, $v_t$ its value after
    the same convolution and SiLU, $S_t$ the state, $\beta_t$ how far a write replaces, d is head_dim and norm divides a
    head's output by its root mean square, times a learnt gain.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        conv_size: tokens that the convolution sees; 0 leaves it and SiLU of values out.
        negative: whether $\beta_t$ goes up to 2, so that the transition may have eigenvalues down to -1.
        gate: whether the output is gated.
        **options: `value_dim`, `chunk_size` and `backend`, as for every mechanism of this family.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("gated-delta", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Yang et al., 2024, Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464.
    """

    choices = Choices(
        "SiLU, length 1",
        "learnt, one a token",
        "delta rule",
        "RMS of a head",
        "Dk Dv + 3 (2 Dk + Dv)",
        "short convolution, output gate",
    )

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        conv_size: int = 4,
        negative: bool = False,
        gate: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, conv_size=conv_size, negative=negative, **options)
        self.decay = TokenDecay(num_heads, self.value_dim)
        self.gate = OutputGate(num_heads, self.value_dim) if gate else None

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return what `delta` reads, and each token's decay."""
        log_decay, _ = self.decay(value)
        return super().streams(query, key, value, positions)._replace(log_decay=log_decay)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output normalised and gated."""
        out = super().finish(out, streams, value)
        return out if self.gate is None else self.gate(out, value)


class TokenDecay(nn.Module):
    r"""A head's decay of each token, log a = -A Δ with Δ = softplus(u · v + c), as Mamba-2 has it.

    A starts uniform in [1, 16]; c so that Δ is log-uniform in [0.001, 0.1] for v = 0. Both are learnt, A by its
    logarithm.

    Args:
        num_heads: query heads.
        dim: the values' last dim.
    """

    def __init__(self, num_heads: int, dim: int) -> None:
        super().__init__()
        self.linear = HeadLinear(num_heads, dim, 1)
        self.log_rate = nn.Parameter(torch.empty(num_heads, 1).uniform_(1, 16).log())
        self.bias = nn.Parameter(inverse_softplus(log_uniform(num_heads, 1e-3, 0.1))[:, None])

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log decay and Δ, both (B, H, N), in float32 at least, for values (B, Hk, N, D)."""
        delta = F.softplus(widened(self.linear(value)[..., 0]) + self.bias)
        return -widened(self.log_rate).exp() * delta, delta
