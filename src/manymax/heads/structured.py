"""Heads whose classes are not the rows of one matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from manymax.heads.chunk import Linear, chunks, reduce, wide
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack


def by_chunks(piece: Callable[..., Tensor], tokens: tuple[Tensor, ...], width: int, size: int | None) -> Tensor:
    """Return the losses of tokens (N,), some at a time; the backward pass computes each chunk again.

    Args:
        piece: some tokens' rows of `tokens` to their losses (n,). What else it reads must be tensors that it holds
            itself, not a module's: by the time of the backward pass the module may hold others.
        tokens: tensors (N, ...).
        width: numbers that a token needs at once.
        size: tokens at a time; None takes as many as fit.
    """
    parts = list(chunks(len(tokens[0]), width, size)) or [slice(0, 0)]  # no token is a loss with gradients, too
    return torch.cat([checkpoint(piece, *(each[part] for each in tokens), use_reentrant=False) for part in parts])


class StructuredHead(Head):
    """A head with parameters of its own in the place of one row a class.

    Subclasses say what the losses of tokens and the logarithms of all probabilities are. It has neither `weight` nor
    `bias`.

    Args:
        in_features: length of the features.
        num_classes: number of classes.
        **common: the options of every head but `bias`.

    Raises:
        ValueError: if an option is out of range or a bias is asked for.
    """

    def __init__(self, in_features: int, num_classes: int, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, **common)
        if self.bias is not None:
            raise ValueError("bias: expected False, there is no row a class to add it to, got True")
        del self.weight

    @abstractmethod
    def way(self, dtype: torch.dtype) -> tuple[Callable[[Tensor, Tensor], Tensor], int]:
        """Return a function of features (n, d) and targets (n,) to losses (n,), as `by_chunks` wants it.

        Args:
            dtype: in which losses are computed.

        Returns:
            The function, and how many numbers a token needs.
        """

    @abstractmethod
    def log_probabilities(self, input: Tensor) -> Tensor:
        """Return the logarithms of all classes' probabilities, (n, C), for features (n, d)."""

    def scored(self, input: Tensor) -> Linear:
        """Return the features, and rows that say no more than their number, length and dtype."""
        like = next(self.parameters())
        return Linear(input, like.new_zeros(1, self.in_features).expand(self.num_classes, -1), None)

    def logits(self, input: Tensor) -> Tensor:
        """Return the logarithms of all classes' probabilities, (..., num_classes), in the input's dtype."""
        return (
            self.log_probabilities(input.reshape(-1, input.shape[-1]))
            .to(input.dtype)
            .view(*input.shape[:-1], self.num_classes)
        )

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss of features; the rows say nothing."""
        self.check(linear, target)
        kept, dtype = target != self.ignore_index, wide(linear.input.dtype)
        piece, width = self.way(torch.float64 if self.float64 else dtype)
        losses = by_chunks(piece, (linear.input[kept], target[kept]), width, self.chunk_size)
        return reduce(losses.to(dtype), kept, self.reduction)

    def extra_repr(self) -> str:
        """Show the sizes, as `nn.Linear` does."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}"
