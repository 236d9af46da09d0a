"""Any loss of scores, with the gradients of everything behind it, and never more than a chunk's scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manymax._autocast import multiplied, without_autocast
from manymax.heads.chunk import Linear, chunks, wide
from manymax.heads.gradients import Gradients, scaled

Losses = Callable[[Tensor, Tensor], Tensor]


class Way(NamedTuple):
    """How a loss is computed.

    Attributes:
        losses: scores (n, C) and targets (n, ...) to losses (n,).
        chunk_size: tokens whose scores exist at once; None is as many as fit.
        dtype: of the scores that `losses` sees.
    """

    losses: Losses
    chunk_size: int | None
    dtype: torch.dtype


def total(way: Way, linear: Linear, target: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    """Return the sum of the tokens' losses, with gradients found in the forward pass while the scores are at hand.

    Args:
        way: the loss.
        linear: (N, d), (C, d) and (C,) or None; they have gradients.
        target: (N, ...), without a gradient.
        parameters: what else `losses` reads and has a gradient.
    """
    loss: Tensor = _total(way, target, *_cast(linear), *parameters)
    return loss


def each(way: Way, linear: Linear, target: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    """Return the tokens' losses, (N,); the backward pass computes the scores again. Arguments as in `total`."""
    losses: Tensor = _each(way, target, *_cast(linear), *parameters)
    return losses


def _cast(linear: Linear) -> Linear:
    input, rows = multiplied(linear.input, linear.rows)
    return Linear(input, rows, linear.bias)


class _Pieces:
    """The chunks of a batch: losses, and the gradients of some tokens' losses."""

    def __init__(self, way: Way, target: Tensor, given: tuple[Any, ...], needs: tuple[bool, ...]) -> None:
        self.way, self.target, self.linear, self.parameters = way, target, Linear(*given[:3]), given[3:]
        self.gradients = Gradients(self.linear, needs[:3])
        self.learnt = [p for p, needed in zip(self.parameters, needs[3:], strict=True) if needed]
        self.sums = [torch.zeros_like(p) for p in self.learnt]
        self.needs = needs

    def __iter__(self) -> Iterator[slice]:
        return chunks(len(self.linear.input), len(self.linear.rows), self.way.chunk_size)

    def losses(self, part: slice, gains: Tensor | None) -> Tensor:
        """Return the losses of a chunk; with gains, (n,), add the gradients of their sum weighted so."""
        with without_autocast(self.linear.input):
            scores = (self.linear.input[part] @ self.linear.rows.T).to(self.way.dtype)
            if self.linear.bias is not None:
                scores += self.linear.bias
            if gains is None:
                return self.way.losses(scores, self.target[part])
            with torch.enable_grad():
                losses = self.way.losses(scores.requires_grad_(), self.target[part])
            wanted = [scores, *self.learnt]
            d_scores, *found = torch.autograd.grad(losses, wanted, gains.to(losses.dtype), allow_unused=True)
            if d_scores is not None:
                self.gradients.add(d_scores, part)
            self.sums = [a if b is None else a + b for a, b in zip(self.sums, found, strict=True)]
            return losses.detach()

    def results(self) -> list[Tensor | None]:
        """Return the gradients of everything, those of rows and bias in float32 at least."""
        sums, found = iter(self.sums), self.gradients
        return [found.input, found.rows, found.bias, *(next(sums) if needed else None for needed in self.needs[3:])]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, way: Way, target: Tensor, *given: Any) -> Tensor:
        """Return the sum."""
        needs = ctx.needs_input_grad[2:]
        pieces = _Pieces(way, target, given, needs)
        whole = torch.zeros((), dtype=torch.float64, device=target.device)
        for part in pieces:
            gains = torch.ones(len(target[part]), device=target.device) if any(needs) else None
            whole += pieces.losses(part, gains).sum()
        ctx.dtypes = [None if x is None else x.dtype for x in given]
        ctx.save_for_backward(*pieces.results())
        loss: Tensor = whole.to(wide(pieces.linear.input.dtype))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Any, ...]:
        """Return what the forward pass has found, times the loss's own gradient."""
        return None, None, *scaled(ctx.saved_tensors, ctx.dtypes, d_loss)


class _Each(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, way: Way, target: Tensor, *given: Any) -> Tensor:
        """Return the losses."""
        pieces = _Pieces(way, target, given, (False,) * len(given))
        losses: Tensor = given[0].new_empty(len(target), dtype=wide(given[0].dtype))
        for part in pieces:
            losses[part] = pieces.losses(part, None)
        ctx.way = way
        ctx.save_for_backward(target, *given)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_losses: Tensor) -> tuple[Any, ...]:
        """Return the gradients of the losses so weighted."""
        target, *given = ctx.saved_tensors
        pieces = _Pieces(ctx.way, target, tuple(given), ctx.needs_input_grad[2:])
        for part in pieces:
            pieces.losses(part, d_losses[part])
        dtypes = [None if x is None else x.dtype for x in given]
        return None, None, *scaled(pieces.results(), dtypes, None)


_total: Any = _Total.apply  # untyped in torch
_each: Any = _Each.apply
