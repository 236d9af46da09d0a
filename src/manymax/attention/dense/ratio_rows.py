"""Ratio maps by tiles: running sums relative to a shift that grows."""

from __future__ import annotations

import torch
from torch import Tensor

from manymax.attention.dense.results import Results
from manymax.attention.dense.rows import Rows
from manymax.attention.dense.tiles import Tile
from manymax.maps.ratio import Ratio


class RatioRows(Rows[Ratio]):
    """Numerators are summed tile by tile, relative to a shift that grows; their total divides at the end."""

    def _sink_numerators(self, shift: Tensor, *, derivative: bool = False) -> Tensor:
        """Return what the sinks add to the totals (b, h, rows, 1), or its derivative in the sinks' scores."""
        sinks = self.block.slab.sinks()
        if sinks is None:
            return torch.zeros_like(shift)
        function = self.rule.numerator_grad if derivative else self.rule.numerator
        return torch.where(sinks[1], function(sinks[0].expand_as(shift), shift), 0)

    def _largest(self, scores: Tensor, hidden: Tensor | None) -> Tensor:
        """Return the rows' statistic, -inf where a row shows nothing."""
        size = scores if self.rule.statistic == "max" else scores.abs()
        return (size if hidden is None else size.masked_fill(hidden, -torch.inf)).amax(-1, keepdim=True)

    def forward(self) -> Results:
        """Visit the tiles; each may raise the shift, and what was summed so far is scaled to it."""
        block, rule, out = self.block, self.rule, self.block.zeros()
        shifts = rule.statistic != "none"
        largest = out.new_full((*block.shape, 1), -torch.inf)
        sinks = block.slab.sinks()
        if sinks is not None and shifts:
            largest = self._largest(sinks[0], ~sinks[1]).expand_as(largest)
        shift = rule.finite(largest) if shifts else torch.zeros_like(largest)
        total = self._sink_numerators(shift)
        for tile in block.tiles(self.step):
            if shifts:
                before, largest = largest, torch.maximum(largest, self._largest(tile.scores, tile.hidden))
                old, shift = shift, rule.finite(largest)
                change = torch.exp(rule.log_scale(old) - rule.log_scale(shift))
                change = torch.where(before == -torch.inf, 0, change)  # nothing was summed so far
                total = total * change
                out.mul_(block.slab.fold(change))
            numerators = tile.show(rule.numerator(tile.scores, shift))
            total = total + numerators.sum(-1, keepdim=True)
            block.add_values(out, tile, tile.drop(numerators))
        return self._divide(out, shift, total)

    def _divide(self, out: Tensor, shift: Tensor, total: Tensor) -> Results:
        """Add what the map adds to every row's total, and divide by it."""
        log_scale = self.rule.log_scale(shift)
        if type(self.rule).extra is not Ratio.extra:  # counting keys reads the masks once more
            n, sinks = self.block.counts(self.step), self.block.slab.sinks()
            extra = self.rule.extra(n if sinks is None else n + sinks[1])
            total = total if extra is None else total + extra * torch.exp(-log_scale)
        empty = total == 0
        total = torch.where(empty, 1, total)
        lse = torch.where(empty, -torch.inf, torch.log(total) + log_scale)
        return Results(self.block.unfold(out) / total, lse, shift, total)

    def start(self, d_results: Results, results: Results) -> Tensor:
        """Take the gradients of the results; return that of the values summed but not yet divided, folded.

        A weight is numerator / total. Dividing the gradient by the total here spares dividing every tile.
        """
        assert results.shift is not None
        assert results.total is not None
        self.shift, self.total, self.d_lse = results.shift, results.total, d_results.lse
        d_out = d_results.out.to(self.shift.dtype) / self.total
        seen = self.block.seen
        self.one_tile = 0 < seen.stop - seen.start <= self.step
        if not self.one_tile:
            self._know_share((d_out * results.out).sum(-1, keepdim=True))
        return self.block.slab.fold(d_out)

    def _know_share(self, share: Tensor) -> None:
        """Take the weighted mean of the weights' gradients, which each of them loses through the total."""
        self.share = share if self.d_lse is None else share - self.d_lse / self.total
        if self.block.slab.inputs.sinks is not None:
            d_sinks = -self._sink_numerators(self.shift, derivative=True) * self.share
            self.d_sinks = d_sinks.sum((0, 2, 3)) / self.block.slab.temperature

    def back(self, tile: Tile, d_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numerators, and the gradient of the scores: each also enlarges its row's total."""
        numerators = self.rule.numerator(tile.scores, self.shift)
        if self.one_tile:  # rounded as the rest is, so that what should cancel does: a row of one key has no gradient
            self._know_share(tile.show(numerators * d_weights).sum(-1, keepdim=True) / self.total)
        return numerators, self.rule.numerator_grad(tile.scores, self.shift) * (d_weights - self.share)
