"""Which keys a query sees: causality, window and alignment as one band, and the masks on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_

import torch
from torch import Tensor

from manymax.attention.dense.inputs import Inputs


@dataclass(frozen=True)
class Band:
    """Query i may see key j where low <= j - i <= high; None is no bound.

    Attributes:
        low: the furthest key to the left.
        high: the furthest key to the right.
    """

    low: int | None = None
    high: int | None = None

    def columns(self, rows: slice, keys: int) -> slice:
        """Return the keys that some query of the block may see; the slice may be empty."""
        start = 0 if self.low is None else min(max(rows.start + self.low, 0), keys)
        stop = keys if self.high is None else min(max(rows.stop + self.high, 0), keys)
        return slice(start, max(start, stop))

    def block(self, rows: slice, columns: slice, device: torch.device) -> Tensor | None:
        """Return which pairs of a block it allows, bool (rows, columns); None where it allows all."""
        query = torch.arange(rows.start, rows.stop, device=device)[:, None]
        key = torch.arange(columns.start, columns.stop, device=device)
        allowed = []
        if self.low is not None and columns.start - (rows.stop - 1) < self.low:
            allowed.append(key - query >= self.low)
        if self.high is not None and columns.stop - 1 - rows.start > self.high:
            allowed.append(key - query <= self.high)
        return reduce(and_, allowed) if allowed else None

    def counts(self, rows: slice, keys: int, device: torch.device) -> Tensor:
        """Return how many of `keys` keys each query of the block may see, (rows, 1)."""
        query = torch.arange(rows.start, rows.stop, device=device)[:, None]
        first = torch.zeros_like(query) if self.low is None else (query + self.low).clamp(min=0)
        last = torch.full_like(query, keys - 1) if self.high is None else (query + self.high).clamp(max=keys - 1)
        return (last - first + 1).clamp(min=0)


_ALL = Band()


def make_band(
    queries: int, keys: int, window: tuple[int | None, int | None], *, is_causal: bool, align_last: bool
) -> Band:
    """Return the band of a causal flag and a window, without the bounds that exclude no pair.

    Args:
        queries: number of queries.
        keys: number of keys.
        window: how many keys to the left and to the right a query sees; None is no bound.
        is_causal: nothing to the right of the query's own position.
        align_last: the last query stands at the last key; otherwise the first stands at the first.
    """
    left, right = window
    if left is None and right is None and not is_causal:
        return _ALL
    offset = keys - queries if align_last else 0
    right = 0 if is_causal else right
    low = None if left is None else offset - left
    high = None if right is None else offset + right
    return Band(
        low=None if low is not None and low <= 1 - queries else low,
        high=None if high is not None and high >= keys - 1 else high,
    )


def part(x: Tensor, *slices: slice, start: int) -> Tensor:
    """Cut the dims start, start + 1, ... of a tensor, except those in which it is broadcast (size 1)."""
    for dim, piece in enumerate(slices, start):
        if x.shape[dim] != 1:
            x = x.narrow(dim, piece.start, piece.stop - piece.start)
    return x


def visible_block(inputs: Inputs, band: Band, rows: slice, columns: slice) -> Tensor | None:
    """Return which pairs of a block take part, bool and broadcastable to (B, Hq, rows, columns); None is all.

    A pair is out of sight where the band or the bool mask rules it out, or where -inf is added to its score.
    """
    near = band.block(rows, columns, inputs.query.device)
    parts = [] if near is None else [near]
    if inputs.mask is not None:
        parts.append(part(inputs.mask, rows, columns, start=2))
    parts += [part(addition, rows, columns, start=2) != -torch.inf for addition in inputs.additions]
    return reduce(and_, parts) if parts else None
