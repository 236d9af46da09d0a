"""Where tiles put their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manymax.attention.dense.inputs import Inputs
from manymax.attention.dense.plan import Place
from manymax.attention.dense.tiles import Block, Slab, Tile
from manymax.attention.dense.visibility import part


@dataclass(frozen=True)
class Gradients:
    """Gradients of a call's inputs. Sinks and additions are summed in float32 or better; None where not asked for."""

    query: Tensor
    key: Tensor
    value: Tensor
    sinks: Tensor | None
    additions: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, inputs: Inputs, needs: tuple[bool, ...], dtype: torch.dtype) -> Gradients:
        """Make buffers; `needs` says, in the order of `Inputs.tensors`, which gradients are asked for."""
        _, _, _, _, needs_sinks, *needs_additions = needs
        return cls(
            torch.empty_like(inputs.query),
            torch.empty_like(inputs.key),
            torch.empty_like(inputs.value),
            torch.zeros_like(inputs.sinks, dtype=dtype) if inputs.sinks is not None and needs_sinks else None,
            tuple(
                torch.zeros_like(x, dtype=dtype) if need else None
                for x, need in zip(inputs.additions, needs_additions, strict=True)
            ),
        )

    def tensors(self, inputs: Inputs) -> tuple[Tensor | None, ...]:
        """Return all in the order and dtypes of `Inputs.tensors`; the bool mask has none."""
        rest = zip((self.sinks, *self.additions), (inputs.sinks, *inputs.additions), strict=True)
        cast = (None if d is None or x is None else d.to(x.dtype) for d, x in rest)
        return self.query, self.key, self.value, None, *cast


class SlabGradients:
    """A slab's share: what keys and values get from all its blocks, and where the rest goes."""

    def __init__(self, whole: Gradients, slab: Slab, place: Place) -> None:
        self.whole = whole
        self.slab = slab
        self.place = place
        self.key = torch.zeros_like(slab.key)
        self.value = torch.zeros_like(slab.value)
        at = (place.batch, place.of_query)
        self.additions = [None if d is None else part(d, *at, start=0) for d in whole.additions]

    def finish(self) -> None:
        """Store what all blocks added to the keys and values."""
        for whole, d in ((self.whole.key, self.key), (self.whole.value, self.value)):
            there = whole[self.place.batch, self.place.heads]
            there.copy_(d.view(there.shape))


class BlockGradients:
    """A block's share.

    Args:
        slab: where it adds to the keys, values and additions.
        block: its queries.
        d_out: the gradient of the values that the block's weights sum, folded.
    """

    def __init__(self, slab: SlabGradients, block: Block, d_out: Tensor) -> None:
        self.slab = slab
        self.block = block
        self.d_out = d_out
        self.query = torch.zeros_like(block.query)

    def add(self, tile: Tile, weights: Tensor, d_scores: Tensor) -> None:
        """Add a tile's share, given what multiplied the values and the gradient of its scores, both 0 where hidden."""
        to, slab, columns = self.slab, self.slab.slab, tile.columns
        to.value[:, columns].baddbmm_(slab.fold(weights).mT, self.d_out)
        for d in to.additions:
            if d is not None:
                there = part(d, self.block.rows, columns, start=2)
                there.add_(d_scores.sum_to_size(there.shape), alpha=1 / slab.temperature)
        if tile.capped is not None:
            d_scores = d_scores * slab.bound * (1 - tile.capped.square())
        folded = slab.fold(d_scores)
        self.query.baddbmm_(folded, slab.key[:, columns])
        to.key[:, columns].baddbmm_(folded.mT, self.block.query)

    def finish(self, d_sinks: Tensor | None) -> None:
        """Store what belongs to the block's queries and their heads."""
        whole, place = self.slab.whole, self.slab.place
        d_query = self.block.unfold(self.query * self.slab.slab.factor)
        whole.query[place.batch, place.of_query, self.block.rows] = d_query.to(whole.query.dtype)
        if whole.sinks is not None and d_sinks is not None:
            whole.sinks[place.of_query] += d_sinks
