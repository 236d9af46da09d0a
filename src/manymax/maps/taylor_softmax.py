"""Taylor softmax: the exponential's Taylor polynomial in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.ratio import Ratio, Statistic
from manymax.maps.rule import apply, check_count


def _scaled_polynomial(order: int, score: Tensor, shift: Tensor) -> Tensor:
    """Return the Taylor polynomial of exp at the score over shift^order, by Horner's rule, with no power above 1."""
    ratio, rest = score / shift, 1 / shift
    value = torch.ones_like(ratio)
    for k in range(order, 0, -1):
        value = rest ** (order - k + 1) + ratio / k * value
    return value


@dataclass(frozen=True)
class TaylorSoftmax(Ratio):
    """g(x) = sum of x^k / k! up to an even order, relative to the row's largest |x|."""

    kernel: ClassVar[str | None] = "taylor_softmax"
    statistic: ClassVar[Statistic] = "absmax"

    order: int = 2

    def __post_init__(self) -> None:
        """Refuse an order at which the polynomial has a negative value somewhere."""
        super().__post_init__()
        check_count("order", self.order, lambda order: order > 0 and order % 2 == 0, "an even whole number above 0")

    @property
    def floor(self) -> float:
        """Return 1: below that the constant term is the largest and nothing overflows."""
        return 1.0

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return g(score) / shift^order."""
        return _scaled_polynomial(self.order, score, shift)

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return the polynomial of one order less, which is g's derivative, over shift^order."""
        return _scaled_polynomial(self.order - 1, score, shift) / shift

    def log_scale(self, shift: Tensor) -> Tensor:
        """Return order log(shift)."""
        return self.order * torch.log(shift)


def taylor_softmax(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    order: int = 2,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Replace softmax's exponential by its Taylor polynomial and divide by the sum.

    $$w_i = \frac{g(x_i / T)}{\sum_j g(x_j / T)}, \qquad g(x) = \sum_{k=0}^{m} \frac{x^k}{k!}$$

    with $T$ the temperature, $m$ the even order and the sum over the visible entries of the row. At even orders $g$ is
    positive everywhere, and at order 2 its least value is 1/2. It falls and rises again on the negative side.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        order: $m$, even and positive; the paper uses 2.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, order is odd or not
            positive, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.taylor_softmax(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0.0769, 0.1538, 0.7692])

    Source:
        de Brébisson and Vincent, 2015, An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family,
        arXiv:1511.05042; higher orders in Banerjee et al., 2020, Exploring Alternatives to Softmax Function,
        arXiv:2011.11538.
    """
    return apply(TaylorSoftmax(temperature, order), x, dim, mask)
