"""Parts that several mechanisms share: short convolution, gates that a token opens or closes, norms of outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def per_head(x: Tensor, num_heads: int) -> Tensor:
    """Return keys or values (B, Hk, N, D) with one head for each query head."""
    return x if x.shape[1] == num_heads else x.repeat_interleave(num_heads // x.shape[1], 1)


def widened(x: Tensor) -> Tensor:
    """Return x in float32 at least: what sums of decays and statistics need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def fixed_decay(log_decay: Sequence[float], like: Tensor) -> Tensor:
    """Return each head's log decay, (H,), in float32 at least; a buffer would lose digits with its module's dtype."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.tensor(log_decay, dtype=dtype, device=like.device)


def last_seen(seen: Tensor, keep: Tensor | None, size: int) -> Tensor:
    """Return the inputs that a convolution over the next tokens still sees, (B, H, size, D).

    Args:
        seen: (B, H, size + N, D), the inputs before and these.
        keep: (B, N), False at padding, after whose end nothing counts; None is none.
        size: how many tokens back it sees.
    """
    if keep is None:
        return seen[:, :, seen.shape[2] - size :]
    places = torch.arange(1, keep.shape[1] + 1, device=keep.device)
    ends = torch.where(keep, places, 0).amax(1)
    where = ends[:, None] + torch.arange(size, device=seen.device)
    return seen.gather(2, where[:, None, :, None].expand(-1, seen.shape[1], -1, seen.shape[3]))


class ShortConvolution(nn.Module):
    r"""A causal convolution along the tokens, each channel by itself.

    $$y_t = \sum_{s=0}^{K-1} w_s \odot x_{t-s}$$

    Args:
        num_heads: heads of x.
        dim: channels of a head.
        size: K, the tokens that an output sees, itself included.
    """

    def __init__(self, num_heads: int, dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(num_heads, dim, size).uniform_(-(size**-0.5), size**-0.5))

    def forward(self, x: Tensor, tail: Tensor | None, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs, and the inputs that the next tokens still see.

        Args:
            x: (B, H, N, D).
            tail: the last K - 1 inputs before x, (B, H, K - 1, D); None is zeros.
            keep: (B, N), False at padding; None is none.
        """
        batch, heads, tokens, dim = x.shape
        if tail is None:
            tail = x.new_zeros(batch, heads, self.size - 1, dim)
        if not tokens:
            return x, tail
        seen = torch.cat([tail.to(x.dtype), x], 2)
        if tokens == 1 and keep is None:
            # a fifth of conv1d's time with so many groups; a weight that lies as the tokens do halves a batch's
            weight = self.weight.mT.contiguous().flip(1).to(x.dtype)
            return (seen * weight).sum(2, keepdim=True), seen[:, :, 1:]
        flat = seen.transpose(2, 3).reshape(batch, heads * dim, seen.shape[2])
        kernel = self.weight.flip(-1).reshape(heads * dim, 1, self.size).to(x.dtype)
        out = F.conv1d(flat, kernel, groups=heads * dim)
        return out.reshape(batch, heads, dim, tokens).transpose(2, 3), last_seen(seen, keep, self.size - 1)


class HeadLinear(nn.Module):
    """A linear map of each head's own, from D to `out` numbers, started as `nn.Linear` starts.

    It reads values, which are linear in the token's features whatever a model does to queries and keys for positions.

    Args:
        num_heads: query heads; values with fewer serve several each.
        dim: D, the values' last dim.
        out: numbers of a head.
        bias: whether to add one, from 0.
    """

    def __init__(self, num_heads: int, dim: int, out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, dim, out).uniform_(-(dim**-0.5), dim**-0.5))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, out)) if bias else None

    def forward(self, value: Tensor) -> Tensor:
        """Return (B, H, N, out) for values (B, Hk, N, D)."""
        heads, dim, _ = self.weight.shape
        if value.shape[3] != dim:
            raise ValueError(f"value: expected a last dim of {dim}, as value_dim says, got {value.shape[3]}")
        value, weight = per_head(value, heads), self.weight.to(value.dtype)
        batch, tokens, outs = value.shape[0], value.shape[2], weight.shape[2]
        # A product of four dims with three copies the weights for each sequence of the batch.
        if batch > 1 and tokens * (dim + outs) < dim * outs:
            flat = value.transpose(0, 1).reshape(heads, batch * tokens, dim) @ weight
            out = flat.view(heads, batch, tokens, outs).transpose(0, 1)
        else:
            out = value @ weight
        return out if self.bias is None else out + self.bias.to(value.dtype)


class HeadNorm(nn.Module):
    r"""Each head's output divided by its root mean square, times a learnt gain of each channel.

    Args:
        num_heads: heads.
        dim: channels of a head.
        learnt: whether there is a gain; it starts at 1.
        eps: added to the mean square.

    Source:
        Zhang and Sennrich, 2019, Root Mean Square Layer Normalization, arXiv:1910.07467.
    """

    def __init__(self, num_heads: int, dim: int, *, learnt: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_heads, 1, dim)) if learnt else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, H, N, D) normalised; statistics are in float32 at least."""
        wide = widened(x)
        normal = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)
        return normal if self.gain is None else normal * self.gain.to(x.dtype)


class OutputGate(nn.Module):
    r"""A gate of each channel of the output: out ⊙ SiLU(W v), where v is the token's own value.

    Papers compute the gate from the token's features x; here a mechanism sees queries, keys and values, and v is
    linear in x.

    Args:
        num_heads: query heads.
        dim: the values' last dim.
    """

    def __init__(self, num_heads: int, dim: int) -> None:
        super().__init__()
        self.linear = HeadLinear(num_heads, dim, dim)

    def forward(self, out: Tensor, value: Tensor) -> Tensor:
        """Return the gated output (B, H, N, Dv)."""
        return out * F.silu(self.linear(value))


def inverse_softplus(x: Tensor) -> Tensor:
    """Return y with softplus(y) = x, for positive x."""
    return x + torch.log(-torch.expm1(-x))


def log_uniform(count: int, low: float, high: float) -> Tensor:
    """Return positive numbers whose logarithms are uniform."""
    return torch.exp(torch.empty(count).uniform_(math.log(low), math.log(high)))
