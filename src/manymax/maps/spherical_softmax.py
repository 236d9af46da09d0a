"""Spherical softmax: squared scores over their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.ratio import SMALLEST_SCALE, Ratio, Statistic
from manymax.maps.rule import apply, check_option


@dataclass(frozen=True)
class SphericalSoftmax(Ratio):
    """g(x) = x^2 + eps, relative to the row's largest |x|."""

    kernel: ClassVar[str | None] = "spherical_softmax"
    statistic: ClassVar[Statistic] = "absmax"

    eps: float | Tensor = 1e-5

    def __post_init__(self) -> None:
        """Refuse a negative eps."""
        super().__post_init__()
        check_option("eps", self.eps, lambda eps: eps >= 0, "a number of at least 0")

    @property
    def _plain(self) -> bool:
        return not isinstance(self.eps, Tensor) and self.eps == 0

    @property
    def floor(self) -> float:
        """Return 1 with eps, whose share must not overflow, else the least scale that a score can be divided by."""
        return SMALLEST_SCALE if self._plain else 1.0

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return (score^2 + eps) / shift^2."""
        squares = (score / shift).square()
        return squares if self._plain else squares + self.eps / shift.square()

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return 2 score / shift^2."""
        return 2 * (score / shift) / shift

    def log_scale(self, shift: Tensor) -> Tensor:
        """Return 2 log(shift)."""
        return 2 * torch.log(shift)


def spherical_softmax(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    eps: float | Tensor = 1e-5,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Square scores and divide by their sum.

    $$w_i = \frac{(x_i / T)^2 + \varepsilon}{\sum_j \left( (x_j / T)^2 + \varepsilon \right)}$$

    with $T$ the temperature and the sum over the visible entries of the row. Only the row's squared length and its sum
    are needed of all other classes, which makes exact updates of huge output layers cheap. The sign of a score does not
    matter.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        eps: $\varepsilon \ge 0$, which keeps weights and the gradient of their logarithm finite at scores of 0; a
            tensor broadcasts to `x`. Without it a row of zeros has zero weights.
        temperature: $T > 0$; a tensor broadcasts to `x`. It only matters together with `eps`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, eps < 0, or
            temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.spherical_softmax(torch.tensor([-2.0, 1.0, 0.0]), eps=0.0)
        tensor([0.8000, 0.2000, 0.0000])

    Source:
        de Brébisson and Vincent, 2015, An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family,
        arXiv:1511.05042.
    """
    return apply(SphericalSoftmax(temperature, eps), x, dim, mask)
