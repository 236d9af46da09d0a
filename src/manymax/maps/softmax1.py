"""Softmax with one more in the denominator, so that a row can attend to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.rule import apply
from manymax.maps.softmax import Exponential


@dataclass(frozen=True)
class Softmax1(Exponential):
    """g(x) = exp(x) with 1 added to the row's sum, as if one more score of 0 were there."""

    kernel: ClassVar[str | None] = "softmax1"

    @property
    def sums_to_one(self) -> bool:
        """Return False: the added 1 takes its share."""
        return False

    @property
    def floor(self) -> float:
        """Return 0, the score that the 1 stands for: exp(-shift) then never overflows."""
        return 0.0

    def extra(self, n: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(n)


def softmax1(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Exponentiate scores and divide by one more than their sum.

    $$w_i = \frac{e^{x_i / T}}{1 + \sum_j e^{x_j / T}}$$

    with $T$ the temperature and the sum over the visible entries of the row. Where all scores are very negative the
    weights go to 0, which softmax cannot express: an attention head may do nothing. Known as "off by one" and quiet
    attention; it equals softmax with one more score of 0 whose weight is dropped.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row sums to less than 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.softmax1(torch.zeros(3))
        tensor([0.2500, 0.2500, 0.2500])

    Source:
        Miller, 2023, Attention Is Off By One, https://www.evanmiller.org/attention-is-off-by-one.html.
    """
    return apply(Softmax1(temperature), x, dim, mask)
