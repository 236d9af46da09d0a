"""How large the pieces of a tiled call are, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from manymax.attention.dense.inputs import Inputs

ROWS = 128
COLUMNS = 128
ELEMENTS = 2**18  # scores of a tile over all heads of its slab: 1 MiB in float32, so that a few copies stay in cache
LAUNCHED = 8  # on other devices than a CPU each operation is launched: rows and columns times this


@dataclass(frozen=True)
class Sizes:
    """Batch entries and key heads of a slab, rows of a block, columns of a tile."""

    batch: int
    heads: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Place:
    """Where a slab lies in its call: batch entries, key heads, and the query heads that read them."""

    batch: slice
    heads: slice
    of_query: slice


def make_sizes(inputs: Inputs, *, full_rows: bool) -> Sizes:
    """Choose sizes so that a tile of all the slab's heads holds about ELEMENTS scores, whatever the call's shape."""
    _, _, queries, keys = inputs.shape
    heads, groups = max(inputs.key.shape[1], 1), max(inputs.groups, 1)
    times = 1 if inputs.query.device.type == "cpu" else LAUNCHED
    most_rows, most_columns, elements = ROWS * times, COLUMNS * times, ELEMENTS * times**2
    if full_rows:
        columns = max(keys, 1)
        rows = min(max(elements // (groups * columns), 1), most_rows, max(queries, 1))
    else:
        rows = min(max(most_rows // groups, 1), max(queries, 1))
        columns = min(max(most_rows * most_columns // (groups * rows), most_columns), max(keys, 1))
    fit = max(elements // (groups * rows * columns), 1)
    return Sizes(batch=max(fit // heads, 1), heads=min(fit, heads), rows=rows, columns=columns)


def pieces(size: int, step: int, start: int = 0) -> Iterator[slice]:
    """Cut start .. size into slices of `step`, the last one shorter."""
    for first in range(start, size, step):
        yield slice(first, min(first + step, size))


def places(inputs: Inputs, sizes: Sizes) -> Iterator[Place]:
    """Visit the slabs of a call."""
    for batch in pieces(inputs.shape[0], sizes.batch):
        for heads in pieces(inputs.key.shape[1], sizes.heads):
            yield Place(batch, heads, slice(heads.start * inputs.groups, heads.stop * inputs.groups))
