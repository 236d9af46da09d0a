"""Softmax attention within square windows of a grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.attention.mechanism import Grid
from manymax.models.layers import Heads, Size


class WindowAttention(Heads):
    """An attention sublayer whose tokens see those of their own window: as in Swin, without shifts.

    Args:
        size: of the block.
        side: of a window, in tokens.

    Source:
        Liu et al., 2021, Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, arXiv:2103.14030.
    """

    def __init__(self, size: Size, side: int) -> None:
        super().__init__(size)
        self.side = side

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Return what each token of x (B, N, width) reads from its window."""
        return self.merge(window_attention(*self.split(x), grid=grid, side=self.side))


def window_attention(query: Tensor, key: Tensor, value: Tensor, *, grid: Grid, side: int) -> Tensor:
    """Return softmax attention (B, H, N, D) within windows of side x side tokens, the first at the top left.

    Windows that reach beyond the grid hold fewer tokens: what pads them is seen by nobody.

    Args:
        query: (B, H, N, D), the places of the grid row by row.
        key: (B, Hk, N, D); Hk divides H.
        value: (B, Hk, N, D).
        grid: (height, width).
        side: of a window.
    """
    down, across, rows, columns = _counts(grid, side)
    inside = None
    if (down * rows, across * columns) != grid:
        inside = _windows(torch.ones_like(query[:, :1, :, :1], dtype=torch.bool), grid, side).transpose(2, 3)
    q, k, v = (_windows(x, grid, side) for x in (query, key, value))
    out: Tensor = attention(q, k, v, inside, enable_gqa=query.shape[1] != key.shape[1])
    batch, heads, _, dim = query.shape
    image = out.reshape(batch, down, across, heads, rows, columns, dim).permute(0, 3, 1, 4, 2, 5, 6)
    whole = image.reshape(batch, heads, down * rows, across * columns, dim)
    return whole[:, :, : grid[0], : grid[1]].flatten(2, 3)


def _counts(grid: Grid, side: int) -> tuple[int, int, int, int]:
    """Return how many windows lie below and beside each other, and the rows and columns of each."""
    rows, columns = (min(side, length) for length in grid)
    return -(-grid[0] // rows), -(-grid[1] // columns), rows, columns


def _windows(x: Tensor, grid: Grid, side: int) -> Tensor:
    """Return the tokens of each window, (B * windows, H, rows * columns, D), zeros beyond the grid."""
    down, across, rows, columns = _counts(grid, side)
    batch, heads, _, dim = x.shape
    missing = (0, 0, 0, across * columns - grid[1], 0, down * rows - grid[0])
    image = F.pad(x.reshape(batch, heads, *grid, dim), missing)
    windows = image.reshape(batch, heads, down, rows, across, columns, dim).permute(0, 2, 4, 1, 3, 5, 6)
    return windows.reshape(batch * down * across, heads, rows * columns, dim)
