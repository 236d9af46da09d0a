"""Cutting a call into tiles: batch and heads into slabs, queries into blocks, keys into tiles of a block.

A slab is a smaller call. Its query heads are folded into rows beside the key head they share, so that one batched
product (batch * key heads, groups * rows, keys) serves grouped queries and keys are never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from manymax.attention.dense.call import Options
from manymax.attention.dense.inputs import Inputs
from manymax.attention.dense.plan import Place, pieces
from manymax.attention.dense.visibility import part, visible_block
from manymax.maps.rule import compute_dtype


@dataclass(frozen=True)
class Tile:
    """The scores of a block of queries against a few keys.

    Attributes:
        columns: which keys.
        scores: (b, h, rows, columns), divided by the temperature; anything where hidden.
        hidden: bool, broadcastable to scores; None where all are visible.
        capped: tanh of the score before anything was added; None without a softcap.
        keep: what dropout multiplies the weights with, 0 or 1 / (1 - p); None without dropout.
    """

    columns: slice
    scores: Tensor
    hidden: Tensor | None
    capped: Tensor | None
    keep: Tensor | None

    def show(self, x: Tensor) -> Tensor:
        """Return x with 0 where the tile is hidden."""
        return x if self.hidden is None else x.masked_fill(self.hidden, 0)

    def drop(self, x: Tensor) -> Tensor:
        """Return x with dropout's factors."""
        return x if self.keep is None else x * self.keep


def dropout_factors(like: Tensor, p: float, seed: int) -> Tensor:
    """Return 0 with probability p, else 1 / (1 - p); the seed alone decides, not the default generator."""
    if p == 1:
        return torch.zeros_like(like)
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.empty_like(like).bernoulli_(1 - p, generator=generator).div_(1 - p)


class Slab:
    """A few batch entries and key heads of a call, ready for products.

    Attributes:
        factor: queries are multiplied by it, so that scores come out scaled, or what tanh takes if they are capped.
        bound: what capped scores stay below, after the temperature.
    """

    def __init__(self, inputs: Inputs, options: Options, seed: int, place: Place) -> None:
        batch, heads, of_query = place.batch, place.heads, place.of_query
        self.inputs = Inputs(
            query=inputs.query[batch, of_query],
            key=inputs.key[batch, heads],
            value=inputs.value[batch, heads],
            mask=None if inputs.mask is None else part(inputs.mask, batch, of_query, start=0),
            sinks=None if inputs.sinks is None else inputs.sinks[of_query],
            additions=tuple(part(addition, batch, of_query, start=0) for addition in inputs.additions),
        )
        self.options = options
        self.seed = hash((seed, batch.start, heads.start))
        self.dtype = compute_dtype(inputs.query.dtype)
        self.key = self.inputs.key.to(self.dtype).flatten(0, 1)
        self.value = self.inputs.value.to(self.dtype).flatten(0, 1)
        temperature = options.rule.temperature
        assert not isinstance(temperature, Tensor)
        self.temperature = temperature
        self.factor = options.scale / (temperature if options.softcap is None else options.softcap)
        self.bound = (options.softcap or 0.0) / temperature

    def fold(self, x: Tensor) -> Tensor:
        """Turn (b, query heads, rows, d) into (b * key heads, groups * rows, d)."""
        batch, heads, rows, dim = x.shape
        return x.to(self.dtype).reshape(self.key.shape[0], batch * heads * rows // max(self.key.shape[0], 1), dim)

    def sinks(self) -> tuple[Tensor, Tensor] | None:
        """Return the sinks' scores (h, 1, 1), 0 where hidden, and which are visible: a sink of -inf is not there."""
        if self.inputs.sinks is None:
            return None
        sinks = self.inputs.sinks.to(self.dtype)[:, None, None]
        visible = sinks != -torch.inf
        return torch.where(visible, sinks, 0) / self.temperature, visible


class Block:
    """A slab's block of queries, and its scores tile by tile.

    Attributes:
        query: (b * key heads, groups * rows, D), times the slab's factor.
        shape: (b, query heads, rows).
        keys: how many there are.
        seen: those that the band leaves to some of the queries.
    """

    def __init__(self, slab: Slab, rows: slice) -> None:
        self.slab = slab
        self.rows = rows
        self.query = slab.fold(slab.inputs.query[:, :, rows]).mul(slab.factor)
        batch, heads, _, self.keys = slab.inputs.shape
        self.shape = (batch, heads, rows.stop - rows.start)
        self.seen = slab.options.band.columns(rows, self.keys)

    def unfold(self, x: Tensor) -> Tensor:
        """Turn (b * key heads, groups * rows, d) into (b, query heads, rows, d)."""
        return x.view(*self.shape, x.shape[-1])

    def zeros(self) -> Tensor:
        """Return folded outputs to add to."""
        return self.slab.value.new_zeros(*self.query.shape[:2], self.slab.value.shape[-1])

    def add_values(self, out: Tensor, tile: Tile, weights: Tensor) -> None:
        """Add the tile's values, weighted, to the folded outputs."""
        out.baddbmm_(self.slab.fold(weights), self.slab.value[:, tile.columns])

    def tiles(self, step: int) -> Iterator[Tile]:
        """Visit the keys that some of the queries see, `step` at a time."""
        for columns in pieces(self.seen.stop, step, self.seen.start):
            yield self._tile(columns)

    def _tile(self, columns: slice) -> Tile:
        """Compute the scores against a few keys."""
        slab, options, additions = self.slab, self.slab.options, self.slab.inputs.additions
        scores = self.unfold(torch.bmm(self.query, slab.key[:, columns].mT))
        capped = None
        if options.softcap is not None:
            capped = scores.tanh_()
            scores = capped * slab.bound
        for addition in additions:
            scores.add_(part(addition, self.rows, columns, start=2).to(slab.dtype), alpha=1 / slab.temperature)
        visible = self.visible(columns)
        hidden = None if visible is None else ~visible
        keep = None
        if options.dropout_p > 0:
            seed = hash((slab.seed, self.rows.start, columns.start)) % 2**63
            keep = dropout_factors(scores, options.dropout_p, seed)
        return Tile(columns, scores, hidden, capped, keep)

    def visible(self, columns: slice) -> Tensor | None:
        """Return which pairs are visible, broadcastable to (b, h, rows, columns); None is all."""
        return visible_block(self.slab.inputs, self.slab.options.band, self.rows, columns)

    def counts(self, step: int) -> Tensor:
        """Return how many keys each query sees, (rows, 1) or, with masks, up to (b, h, rows, 1).

        A key whose product with the query is -inf weighs 0 but is counted: the product is not known yet.
        """
        inputs, band = self.slab.inputs, self.slab.options.band
        if inputs.mask is None and not inputs.additions:
            return band.counts(self.rows, self.keys, self.query.device).to(self.slab.dtype)
        total = self.query.new_zeros(1, 1, self.shape[2], 1)
        for columns in pieces(self.keys, step):
            visible = self.visible(columns)
            assert visible is not None
            total = total + visible.expand(*visible.shape[:-1], columns.stop - columns.start).sum(-1, keepdim=True)
        return total
