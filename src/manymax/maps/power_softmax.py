"""Power-Softmax: an even power in the place of softmax's exponential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.ratio import SMALLEST_SCALE, Ratio, Statistic
from manymax.maps.rule import apply, check_count, check_option


@dataclass(frozen=True)
class PowerSoftmax(Ratio):
    """g(x) = x^p, relative to the row's largest |x|; eps is added to the row's sum, or n eps."""

    kernel: ClassVar[str | None] = "power_softmax"
    statistic: ClassVar[Statistic] = "absmax"

    p: int = 4
    eps: float | Tensor = 0.0
    length_agnostic: bool = False

    def __post_init__(self) -> None:
        """Refuse a power that is not even and positive, and a negative eps."""
        super().__post_init__()
        check_count("p", self.p, lambda p: p > 0 and p % 2 == 0, "an even whole number above 0")
        check_option("eps", self.eps, lambda eps: eps >= 0, "a number of at least 0")

    @property
    def _plain(self) -> bool:
        return not isinstance(self.eps, Tensor) and self.eps == 0

    @property
    def sums_to_one(self) -> bool:
        """Return whether nothing is added to the sum."""
        return self._plain

    @property
    def floor(self) -> float:
        """Return 1 with eps, whose share must not overflow, else the least scale that a score can be divided by."""
        return SMALLEST_SCALE if self._plain else 1.0

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return (score / shift)^p."""
        return (score / shift) ** self.p

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return p (score / shift)^(p - 1) / shift."""
        return self.p * (score / shift) ** (self.p - 1) / shift

    def log_scale(self, shift: Tensor) -> Tensor:
        """Return p log(shift)."""
        return self.p * torch.log(shift)

    def extra(self, n: Tensor) -> Tensor | None:
        """Return eps, or n eps."""
        if self._plain:
            return None
        return n * self.eps if self.length_agnostic else torch.ones_like(n) * self.eps


def power_softmax(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    p: int = 4,
    eps: float | Tensor = 0.0,
    length_agnostic: bool = False,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Raise scores to an even power and divide by their sum.

    $$w_i = \frac{(x_i / T)^p}{\varepsilon + \sum_j (x_j / T)^p}$$

    with $T$ the temperature and the sum over the visible entries of the row. It is a polynomial but for one division,
    which makes it cheap under homomorphic encryption. The sign of a score does not matter. With $\varepsilon > 0$ the
    map is Lipschitz continuous and a row sums to less than 1. `length_agnostic` takes the mean instead of the sum,

    $$w_i = \frac{(x_i / T)^p / n}{\varepsilon + \frac{1}{n} \sum_j (x_j / T)^p},$$

    with $n$ the number of visible entries, so that what the division sees does not grow with the row. Powers are taken
    of scores over the row's largest absolute score (the stable form): nothing overflows, and the weights are the same.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        p: the power, even and positive.
        eps: $\varepsilon \ge 0$; a tensor broadcasts to `x`, with size 1 in `dim`.
        length_agnostic: whether $\varepsilon$ is added to the mean rather than to the sum.
        temperature: $T > 0$; a tensor broadcasts to `x`. It only matters together with `eps`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1 if `eps` is 0 and a score is not.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, p is odd or not positive,
            eps < 0, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.power_softmax(torch.tensor([-2.0, 1.0, 0.0]), p=2)
        tensor([0.8000, 0.2000, 0.0000])

    Source:
        Zimerman et al., 2024, Power-Softmax: Towards Secure LLM Inference over Encrypted Data, arXiv:2410.09457.
    """
    return apply(PowerSoftmax(temperature, p, eps, length_agnostic), x, dim, mask)
