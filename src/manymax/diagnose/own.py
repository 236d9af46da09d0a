"""The attention of manymax's own models, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.attention.dense.call import window_sides
from manymax.attention.dense.module import DenseAttention
from manymax.attention.dense.visibility import make_band
from manymax.diagnose.tile import BYTES, Tile, query_slices, rows_of


def tiles(
    mechanism: DenseAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    limit: int = BYTES,
) -> Iterator[Tile]:
    """Yield what a mechanism makes of a call, whatever its map, in float32 or better.

    Args:
        mechanism: dense attention.
        query: (B, H, Nq, D).
        key: (B, Hk, Nk, D).
        value: (B, Hk, Nk, Dv).
        attn_mask: bool or floating, broadcastable to (B, H, Nq, Nk).
        is_causal: whether a query sees no key after its own position.
        limit: bytes of a tile's weights; a coupled map, whose rows depend on each other, takes all queries at once.
    """
    query, key, value = (x.detach().to(torch.promote_types(x.dtype, torch.float32)) for x in (query, key, value))
    options = dict(mechanism.options)
    align_last = options.pop("causal_align") == "bottom-right"
    sides = window_sides(options.pop("window"))
    band = make_band(query.shape[2], key.shape[2], sides, is_causal=is_causal, align_last=align_last)
    scale = query.shape[-1] ** -0.5 if options["scale"] is None else options["scale"]
    whole = [slice(0, query.shape[2])] if mechanism.map.kind == "coupled" else query_slices(query, key, limit)
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    for rows in whole:
        near = band.block(rows, slice(0, key.shape[2]), query.device)
        visible = torch.ones(1, 1, rows.stop - rows.start, key.shape[2], dtype=torch.bool, device=query.device)
        visible = visible if near is None else visible & near
        bias: Tensor | None = None
        if attn_mask is not None:
            part = rows_of(attn_mask, rows)
            bias = part if part.is_floating_point() else None
            visible = visible & (part if bias is None else part != -torch.inf)
        chosen = query[:, :, rows]
        settings: dict[str, Any] = {**options, "backend": "reference", "enable_gqa": query.shape[1] != key.shape[1]}
        out, weights = attention(
            chosen,
            key,
            value,
            attn_mask=visible,
            bias=bias,
            map=mechanism.map,
            sinks=mechanism.sinks,
            return_weights=True,
            **settings,
        )
        scores = chosen @ keys.mT * scale
        yield Tile(rows.start, weights, scores if bias is None else scores + bias, visible, out)
