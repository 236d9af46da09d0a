"""Local linear regression at each query by tiles of queries and keys: nothing grows with their product.

Nothing of the size of the scores, and no matrix of a query, is ever stored. Each iteration of conjugate gradients
visits the keys once and computes its weights again; forwards keeps three numbers and three vectors a query. The
gradient solves the same systems once more, with another right side, and then visits each tile a last time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manymax._autocast import without_autocast
from manymax.attention.dense.last import last
from manymax.attention.dense.local_linear import SECOND, conjugate_gradient, held_ridge, rescaled
from manymax.attention.dense.plan import pieces
from manymax.attention.dense.visibility import Band

Solved = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # out, slope, denominator, shift, ridge: one row a query


@dataclass(frozen=True)
class Layout:
    """How a call is cut and solved.

    Attributes:
        band: which pairs are visible, beside padding.
        rows: queries of a tile.
        columns: keys of a tile.
        iterations: of conjugate gradients at most.
    """

    band: Band
    rows: int
    columns: int
    iterations: int


@dataclass(frozen=True)
class Tile:
    """A few keys as a block of queries sees them; scores are -inf out of sight."""

    columns: slice
    key: Tensor
    scores: Tensor


class Block:
    """A block of queries, and the keys that they see tile by tile.

    Args:
        query: (B, H, rows, D).
        aim: queries times the scale, (B, H, rows, D).
        key: all keys, (B, H, Nk, D).
        keep: (B, Nk), False at padding; None is no padding.
        layout: the cut.
        rows: where the block lies.
    """

    def __init__(
        self, query: Tensor, aim: Tensor, key: Tensor, keep: Tensor | None, layout: Layout, rows: slice
    ) -> None:
        self.query, self.aim, self.key, self.keep = query, aim, key, keep
        self.layout, self.rows = layout, rows
        self.shift = self.ridge = query.new_zeros(())  # of `start`

    def tiles(self) -> Iterator[Tile]:
        """Visit the keys that some of the queries see."""
        seen = self.layout.band.columns(self.rows, self.key.shape[2])
        for columns in pieces(seen.stop, self.layout.columns, seen.start):
            key = self.key[:, :, columns]
            scores = self.aim @ key.transpose(2, 3)
            near = self.layout.band.block(self.rows, columns, key.device)
            if near is not None:
                scores.masked_fill_(~near, -torch.inf)
            if self.keep is not None:
                scores.masked_fill_(~self.keep[:, None, None, columns], -torch.inf)
            yield Tile(columns, key, scores)

    def weighted(self) -> Iterator[tuple[Tile, Tensor]]:
        """Visit the tiles with their weights exp(score - shift)."""
        for tile in self.tiles():
            yield tile, tile.scores.sub_(self.shift).exp_()

    def start(self, ridge: Tensor) -> tuple[Tensor, Tensor]:
        """Find the shift and the ridge beside shifted weights; return the sums of w and of w z."""
        query = self.query
        largest = query.new_full((*query.shape[:3], 1), -torch.inf)
        total, keys, squares = torch.zeros_like(largest), torch.zeros_like(query), torch.zeros_like(largest)
        shift = torch.zeros_like(largest)
        for tile in self.tiles():
            before, largest = largest, torch.maximum(largest, tile.scores.amax(3, keepdim=True))
            shift = torch.where(largest.isfinite(), largest, 0)
            weight, fade = tile.scores.sub_(shift).exp_(), (before - shift).exp()
            total = fade * total + weight.sum(3, keepdim=True)
            keys = fade * keys + weight @ tile.key
            squares = fade * squares + weight @ tile.key.square().sum(3, keepdim=True)
        self.shift = shift
        self.ridge = held_ridge(ridge, shift, query, total, keys, squares)
        return total, keys - total * query

    def apply(self, x: Tensor) -> Tensor:
        """Return each query's system times its row of x: sum of w z (z · x), and the ridge times x."""
        product, own = self.ridge * x, (x * self.query).sum(3, keepdim=True)
        for tile, weight in self.weighted():
            along = (x @ tile.key.transpose(2, 3)).sub_(own).mul_(weight)
            product = product + along @ tile.key - along.sum(3, keepdim=True) * self.query
        return product

    def solve(self, right: Tensor) -> Tensor:
        """Return the systems' solutions."""
        return conjugate_gradient(self.apply, right, self.layout.iterations)

    def turned(self, tile: Tile, x: Tensor) -> Tensor:
        """Return z · x for each pair."""
        return (x @ tile.key.transpose(2, 3)).sub_((x * self.query).sum(3, keepdim=True))

    def forward(self, value: Tensor, ridge: Tensor) -> Solved:
        """Fit, and return what the gradient needs as well."""
        total, mean = self.start(ridge)
        slope = self.solve(mean)
        out = self.query.new_zeros(*self.query.shape[:3], value.shape[3])
        for tile, weight in self.weighted():
            out = out + (weight * (1 - self.turned(tile, slope))) @ value[:, :, tile.columns]
        seen_any = total > 0
        denominator = torch.where(seen_any, total - (mean * slope).sum(3, keepdim=True), 1)
        return torch.where(seen_any, out / denominator, 0), slope, denominator, self.shift, self.ridge

    def backward(self, grad: Tensor, solved: Solved, value: Tensor, sums: list[Tensor]) -> tuple[Tensor, ...]:
        """Add to the gradients of all keys and values; return those of query, aim and the ridge that was held.

        With c = grad · (v - out) / denominator, the loss moves by the sum of c d(w (1 - z · slope)); the slope's part
        of that is y · d(mean - system slope), where y solves the same system for minus the sum of c w z.
        """
        out, slope, denominator, self.shift, self.ridge = solved
        d_key, d_value = sums
        grad = grad / denominator
        offset = (grad * out).sum(3, keepdim=True)
        right = torch.zeros_like(self.query)
        for tile, weight in self.weighted():
            pull = (grad @ value[:, :, tile.columns].transpose(2, 3)).sub_(offset).mul_(weight)
            right = right - pull @ tile.key + pull.sum(3, keepdim=True) * self.query
        adjoint = self.solve(right)
        d_query, d_aim = torch.zeros_like(self.query), torch.zeros_like(self.query)
        for tile, weight in self.weighted():
            columns = tile.columns
            shares = weight * (1 - self.turned(tile, slope))
            pull = (grad @ value[:, :, columns].transpose(2, 3)).sub_(offset).add_(self.turned(tile, adjoint))
            moved, d_scores = weight * pull, shares * pull
            d_aim = d_aim + d_scores @ tile.key
            d_query = d_query - shares.sum(3, keepdim=True) * adjoint  # and the sum of `moved`, which is 0, times slope
            d_key[:, :, columns] += d_scores.mT @ self.aim + shares.mT @ adjoint - moved.mT @ slope
            d_value[:, :, columns] += shares.mT @ grad
        return d_query, d_aim, -(adjoint * slope).sum(3, keepdim=True)


class _Tiled(torch.autograd.Function):
    """The fit as one differentiable function of query, aim, key, value and ridge."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        aim: Tensor,
        key: Tensor,
        value: Tensor,
        ridge: Tensor,
        keep: Tensor | None,
        layout: Layout,
    ) -> Tensor:
        """Return the outputs."""
        solved = [query.new_empty(*query.shape[:3], size) for size in (value.shape[3], query.shape[3], 1, 1, 1)]
        with without_autocast(query):
            for rows in pieces(query.shape[2], layout.rows):
                block = Block(query[:, :, rows], aim[:, :, rows], key, keep, layout, rows)
                for whole, part in zip(solved, block.forward(value, ridge), strict=True):
                    whole[:, :, rows] = part
        ctx.layout, ctx.keep = layout, keep
        ctx.save_for_backward(query, aim, key, value, ridge, *solved)
        return solved[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the five tensors."""
        query, aim, key, value, ridge, *solved = ctx.saved_tensors
        d_query, d_aim, d_held = torch.empty_like(query), torch.empty_like(aim), torch.empty_like(solved[4])
        sums = [torch.zeros_like(key), torch.zeros_like(value)]
        with torch.no_grad(), without_autocast(query):
            for rows in pieces(query.shape[2], ctx.layout.rows):
                block = Block(query[:, :, rows], aim[:, :, rows], key, ctx.keep, ctx.layout, rows)
                part = tuple(x[:, :, rows] for x in solved)
                found = block.backward(grad[:, :, rows], part, value, sums)
                for whole, own in zip((d_query, d_aim, d_held), found, strict=True):
                    whole[:, :, rows] = own
            shift, held = solved[3:]
            # Where roundings held the fit, the ridge did not.
            d_ridge = torch.where(rescaled(ridge, shift) >= held, rescaled(d_held, shift), 0).sum_to_size(ridge.shape)
        gradients = last((d_query, d_aim, *sums, d_ridge), SECOND, grad, query, aim, key, value, ridge)
        return *gradients, None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def local_linear_tiles(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    band: Band,
    *,
    scale: Tensor | float,
    ridge: Tensor,
    iterations: int | None = None,
    block_size: int = 128,
    key_block_size: int = 256,
) -> Tensor:
    """Return what `local_linear` does with "cg", in memory of the size of the inputs and of a few tiles.

    Scores are computed again in each iteration: 3 D multiplications a pair, where `local_linear` takes 2 D.

    Args:
        query: (B, H, Nq, D), floating of at least 32 bits.
        key: (B, H, Nk, D), as many heads as queries.
        value: (B, H, Nk, Dv).
        keep: (B, Nk), False at padding; None is no padding.
        band: which keys each query sees.
        scale: factor of the scores, a number or (H, 1, 1).
        ridge: (H, 1, 1), positive: added to the diagonal beside weights exp(score), unnormalised.
        iterations: of conjugate gradients at most; None is four times D.
        block_size: queries of a tile. It changes no result.
        key_block_size: keys of a tile. It changes no result.

    Raises:
        RuntimeError: if gradients of its gradients are asked for.
    """
    most = 4 * query.shape[3] if iterations is None else iterations
    layout = Layout(band, block_size, key_block_size, most)
    out: Tensor = _Tiled.apply(query, query * scale, key, value, ridge, keep, layout)  # type: ignore[no-untyped-call]
    return out
