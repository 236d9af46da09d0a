"""How each kind of map turns a block's tiles into outputs, and gradients of outputs into gradients of scores.

Each class serves one block of queries. Forwards, `forward` visits the tiles. Backwards, `start` takes the gradients of
the results, then `back` turns the gradient of a tile's weights into that of its scores.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import Tensor

from manymax.attention.dense.results import Results
from manymax.attention.dense.tiles import Block, Tile
from manymax.maps.pointwise import Pointwise
from manymax.maps.rule import Rule

R = TypeVar("R", bound=Rule)


class Rows(Generic[R]):
    """A block's rows under a map.

    Attributes:
        step: how many keys a tile has.
        d_sinks: the gradient of the sinks (h,), known after `start` or `back`; None without sinks.
    """

    def __init__(self, block: Block, rule: R, step: int) -> None:
        self.block = block
        self.rule = rule
        self.step = step
        self.d_sinks: Tensor | None = None

    def weigh(self, tile: Tile) -> Tensor:
        """Return the tile's weights; hidden entries may hold anything."""
        raise NotImplementedError

    def forward(self) -> Results:
        """Sum the weighted values over the tiles."""
        block = self.block
        out = block.zeros()
        for tile in block.tiles(self.step):
            block.add_values(out, tile, tile.drop(tile.show(self.weigh(tile))))
        return Results(block.unfold(out))

    def start(self, d_results: Results, results: Results) -> Tensor:
        """Take the gradients of the results; return that of the summed values, folded."""
        del results
        return self.block.slab.fold(d_results.out)

    def back(self, tile: Tile, d_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tile's weights and the gradient of its scores; hidden entries may hold anything."""
        raise NotImplementedError


class PointwiseRows(Rows[Pointwise]):
    """Each weight comes from its own score and the number of keys that the query sees."""

    def __init__(self, block: Block, rule: Pointwise, step: int) -> None:
        super().__init__(block, rule, step)
        self.n = block.counts(step).clamp(min=1)

    def weigh(self, tile: Tile) -> Tensor:
        """Return f(score, n)."""
        return self.rule.weight(tile.scores, self.n)

    def back(self, tile: Tile, d_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return f, and f' times the gradient."""
        return self.weigh(tile), self.rule.weight_grad(tile.scores, self.n) * d_weights


class ThresholdRows(Rows[Rule]):
    """Each weight needs the whole row: a tile has all keys, and the map's own autograd goes backwards."""

    def _row(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Return scores and visibility, the sinks in front as one more entry that no value belongs to."""
        scores, visible = tile.show(tile.scores), torch.ones_like(tile.scores, dtype=torch.bool)
        visible = visible if tile.hidden is None else visible & ~tile.hidden
        sinks = self.block.slab.sinks()
        if sinks is None:
            return scores, visible
        score, shown = (x.expand(*visible.shape[:-1], 1) for x in sinks)
        return torch.cat([score, scores], -1), torch.cat([shown, visible], -1)

    def weigh(self, tile: Tile) -> Tensor:
        """Return the weights of full rows."""
        return self.rule.weights(*self._row(tile))[..., -tile.scores.shape[-1] :]

    def back(self, tile: Tile, d_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Run the map again, with autograd, and go back through it."""
        scores, visible = self._row(tile)
        keys = tile.scores.shape[-1]
        with torch.enable_grad():
            weights = self.rule.weights(scores.requires_grad_(), visible)[..., -keys:]
            (d_scores,) = torch.autograd.grad(weights, scores, tile.show(d_weights))
        if scores.shape[-1] > keys:
            self.d_sinks = d_scores[..., 0].sum((0, 2)) / self.block.slab.temperature
        return weights.detach(), d_scores[..., -keys:]
