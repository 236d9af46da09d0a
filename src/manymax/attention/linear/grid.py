"""Tokens that are places of a grid: the argument `grid`, a convolution over the grid, rotary positions in 2-D."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.parts import last_seen, widened
from manymax.attention.mechanism import Grid, Mechanism
from manymax.maps.rule import check_count


class OnGrid(Mechanism):
    """A mechanism made for images: its `mix` also takes `grid`, None for a sequence, which is a grid of one row."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        cu_seqlens: Tensor | None = None,
        grid: Grid | None = None,
    ) -> Tensor:
        """Return the output (B, num_heads, Nq, Dv).

        Args:
            query: (B, num_heads, Nq, head_dim).
            key: (B, Hk, Nk, head_dim).
            value: (B, Hk, Nk, Dv).
            attn_mask: bool, True = take part, (B or 1, 1, 1, Nk): padding. There are no pairs to mask one by one.
            is_causal: whether a query sees no key after its own position.
            cu_seqlens: (sequences + 1,), where each sequence of a packed row starts, and the end of the last; B is 1.
            grid: (height, width) of the places that the tokens are, row by row; None is a sequence.
        """
        options = {"is_causal": is_causal, "cu_seqlens": cu_seqlens}
        if grid is None:
            return self.attend(query, key, value, attn_mask, is_causal=is_causal, cu_seqlens=cu_seqlens)
        if is_causal or cu_seqlens is not None:
            given = " and ".join(name for name, value in options.items() if value is not None and value is not False)
            raise ValueError(f"grid: expected None beside {given}, which are for sequences, got {grid}")
        height, width = grid
        for name, x in {"query": query, "key": key}.items():
            if height < 1 or width < 1 or x.dim() != 4 or height * width != x.shape[2]:
                raise ValueError(f"grid: expected (height, width) of the {name} {tuple(x.shape)}, got {grid}")
        return self.attend(query, key, value, attn_mask, is_causal=False, grid=grid)


class GridConvolution(nn.Module):
    r"""A convolution over the grid, each channel by itself, with zeros around.

    $$y_{r,c} = b + \sum_{s,t} w_{s,t} \odot x_{r+s,c+t}$$

    Along one row only the middle row of the kernel matters, and its causal form is that row's left half with the
    middle.

    Args:
        num_heads: heads of x.
        dim: channels of a head.
        size: side of the kernel, odd.
        bias: whether b is learnt; it starts at 0.
    """

    def __init__(self, num_heads: int, dim: int, size: int, *, bias: bool = True) -> None:
        super().__init__()
        check_side(size)
        self.size = size
        self.weight = nn.Parameter(torch.empty(num_heads, dim, size, size).uniform_(-1 / size, 1 / size))
        self.bias = nn.Parameter(torch.zeros(num_heads, dim)) if bias else None

    def forward(self, x: Tensor, grid: Grid | None) -> Tensor:
        """Return the outputs (B, H, N, D) for x (B, H, N, D)."""
        if not x.shape[2]:
            return x
        height, width = sides(grid, x.shape[2])
        flat = self._channels(x)
        weight, bias = self._kernel(x.dtype)
        half, groups = self.size // 2, flat.shape[1]
        if height == 1:
            out = F.conv1d(flat, weight[:, :, half], bias, padding=half, groups=groups)
        else:
            out = F.conv2d(
                flat.reshape(len(x), groups, height, width), weight, bias, padding=half, groups=groups
            ).flatten(2)
        return _tokens(out, x)

    def causal(self, x: Tensor, tail: Tensor | None, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the outputs of the causal form, and the inputs that the next tokens still see.

        Args:
            x: (B, H, N, D).
            tail: the last size // 2 inputs before x, (B, H, size // 2, D); None is zeros.
            keep: (B, N), False at padding; None is none.
        """
        half = self.size // 2
        if tail is None:
            tail = x.new_zeros(*x.shape[:2], half, x.shape[3])
        if not x.shape[2]:
            return x, tail
        seen = torch.cat([tail.to(x.dtype), x], 2)
        weight, bias = self._kernel(x.dtype)
        flat = self._channels(seen)
        out = F.conv1d(flat, weight[:, :, half, : half + 1], bias, groups=flat.shape[1])
        return _tokens(out, x), last_seen(seen, keep, half)

    @staticmethod
    def _channels(x: Tensor) -> Tensor:
        return x.transpose(2, 3).flatten(1, 2)

    def _kernel(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        weight = self.weight.flatten(0, 1)[:, None].to(dtype)
        return weight, None if self.bias is None else self.bias.flatten().to(dtype)


def check_side(size: int) -> None:
    """Refuse sides of a convolution that have no middle."""
    check_count("local", size, lambda n: n >= 1 and n % 2 == 1, "an odd number of at least 1")


def _tokens(flat: Tensor, x: Tensor) -> Tensor:
    """Return channels (B, H * D, N) as tokens, in the shape (B, H, N, D) of x."""
    batch, heads, tokens, dim = x.shape
    return flat.reshape(batch, heads, dim, tokens).transpose(2, 3)


def sides(grid: Grid | None, tokens: int) -> Grid:
    """Return (height, width), one row for a sequence."""
    return (1, tokens) if grid is None else grid


def places(grid: Grid | None, x: Tensor) -> Tensor:
    """Return the row and the column of each token of x (B, H, N, D), (1, N, 2)."""
    height, width = sides(grid, x.shape[2])
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    return torch.cartesian_prod(row, column).reshape(1, -1, 2)


def turn(x: Tensor, where: Tensor, base: float = 10000.0) -> Tensor:
    """Turn pairs of channels of x (B, H, N, D) by angles that grow with the place; scores then depend on distance.

    With rows and columns a quarter of the channels, in pairs of neighbours, turns by the row with wavelengths from 2 pi
    to 2 pi base, and as many or up to one pair more by the column; in a sequence all pairs do. An odd channel is left.

    Args:
        x: features.
        where: rows and columns (B or 1, N, 2), or places in a sequence (B or 1, N, 1).
        base: ratio of the longest wavelength to the shortest.

    Source:
        Su et al., 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv:2104.09864; in 2-D and
        with the wavelengths of Fan et al., 2025, Rectifying Magnitude Neglect in Linear Attention, arXiv:2507.00698.
    """
    pairs = x.shape[3] // 2
    counts = (pairs // 2, pairs - pairs // 2) if where.shape[-1] == 2 else (pairs,)
    rates = [base ** -torch.linspace(0, 1, n, dtype=torch.float64, device=x.device) for n in counts]
    angles = torch.cat([where[..., axis, None] * rate for axis, rate in enumerate(rates)], -1)[:, None]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x[..., : 2 * pairs].reshape(*x.shape[:3], pairs, 2).unbind(-1)
    turned = torch.stack([left * cos - right * sin, left * sin + right * cos], -1).flatten(-2)
    return torch.cat([turned, x[..., 2 * pairs :]], -1)


def widen(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in float32 at least."""
    return [widened(x) for x in tensors]


def kept(x: Tensor, keep: Tensor | None) -> Tensor:
    """Return x (B, H, N, D) with zeros at padding."""
    return x if keep is None else torch.where(keep[:, None, :, None], x, 0)


def number(x: Tensor, keep: Tensor | None) -> Tensor:
    """Return how many tokens of x (B, H, N, D) take part, at least 1, (B or 1, 1, 1, 1), as a divisor of sums."""
    if keep is None:
        return x.new_full((1, 1, 1, 1), max(x.shape[2], 1))
    return keep.sum(1).clamp(min=1).to(x.dtype)[:, None, None, None]
