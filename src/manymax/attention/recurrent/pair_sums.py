"""Values weighted by any function of the scores, tile by tile: nothing of the size of all pairs is held."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from manymax.attention.dense.plan import pieces
from manymax.attention.dense.visibility import Band

Weigh = Callable[[Tensor, Tensor | None], Tensor]

ROWS = 256  # queries of a tile
TILE = 2**17  # scores of a tile and a head
WHOLE = 2**19  # scores of a head up to which gradients keep all weights: tiles took 1.3 times as long, at 2^20 0.8


def pair_sums(
    weigh: Weigh, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, band: Band
) -> tuple[Tensor, Tensor]:
    """Return the sum of each query's weights times values, (B, H, Nq, Dv), and of its weights, (B, H, Nq, 1).

    Backwards, the weights of many pairs are formed anew, tile by tile.

    Args:
        weigh: returns weights for scores and for which of them are visible, None if all are; others must weigh 0.
        query: (B, H, Nq, D), times the scale.
        key: (B, H, Nk, D), as many heads as queries.
        value: (B, H, Nk, Dv).
        keep: (B, Nk), False at padding; None is no padding.
        band: which keys each query sees.
    """

    def tile(
        query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, rows: slice, columns: slice
    ) -> tuple[Tensor, Tensor]:
        seen = band.block(rows, columns, query.device)
        if keep is not None:
            seen = keep[:, None, None] if seen is None else seen & keep[:, None, None]
        weight = weigh(query @ key.mT, seen)
        return weight @ value, weight.sum(3, keepdim=True)

    queries, keys, learns = query.shape[2], key.shape[2], torch.is_grad_enabled()
    if queries * keys <= (WHOLE if learns else TILE):
        return tile(query, key, value, keep, slice(0, queries), slice(0, keys))
    step = min(queries, ROWS)
    wide = max(TILE // step, 1)
    # One split where a slice for each tile would have a gradient of all keys each.
    parts = list(zip(pieces(keys, wide), torch.split(key, wide, 2), torch.split(value, wide, 2), strict=True))
    outs, totals = [], []
    for rows, some in zip(pieces(queries, step), torch.split(query, step, 2), strict=True):
        out, total = some.new_zeros(*some.shape[:3], value.shape[3]), some.new_zeros(*some.shape[:3], 1)
        for columns, k, v in parts[: -(-band.columns(rows, keys).stop // wide)]:
            arguments = (some, k, v, None if keep is None else keep[:, columns], rows, columns)
            if learns:
                more = checkpoint(tile, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                more = tile(*arguments)
            out, total = out + more[0], total + more[1]
        outs.append(out)
        totals.append(total)
    return torch.cat(outs, 2), torch.cat(totals, 2)
