"""Softmax stretched beyond [0, 1] and clipped back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.rule import apply, check_option, hide
from manymax.maps.threshold import Threshold


@dataclass(frozen=True)
class ClippedSoftmax(Threshold):
    """w = clip((zeta - gamma) softmax(x) + gamma, 0, 1)."""

    kernel: ClassVar[str | None] = "clipped_softmax"

    zeta: float | Tensor = 1.0
    gamma: float | Tensor = -0.03

    def __post_init__(self) -> None:
        """Refuse a range that does not contain [0, 1]."""
        super().__post_init__()
        check_option("zeta", self.zeta, lambda zeta: zeta >= 1, "a number of at least 1")
        check_option("gamma", self.gamma, lambda gamma: gamma <= 0, "a number of at most 0")

    @property
    def sums_to_one(self) -> bool:
        """Return whether the stretch is none, which leaves softmax."""
        if isinstance(self.zeta, Tensor) or isinstance(self.gamma, Tensor):
            return False
        return self.zeta == 1 and self.gamma == 0

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Stretch and clip the softmax of the visible scores."""
        weights = torch.softmax(hide(scores, visible), -1)
        return ((self.zeta - self.gamma) * weights + self.gamma).clamp(0, 1)


def clipped_softmax(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    zeta: float | Tensor = 1.0,
    gamma: float | Tensor = -0.03,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Stretch softmax beyond [0, 1] and clip it: a weight can be exactly 0 (or 1) at finite scores.

    $$w_i = \operatorname{clip}\left((\zeta - \gamma) \frac{e^{x_i / T}}{\sum_j e^{x_j / T}} + \gamma, 0, 1\right)$$

    with $T$ the temperature, $\zeta \ge 1$, $\gamma \le 0$ and the sum over the visible entries of the row. What is
    clipped has no gradient, so that nothing drives scores ever further apart, which is how outliers of activations
    grow. In rows of length $n$ a $\gamma$ of $-a / n$ with $a$ from 2 to 12 acts alike at all lengths.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        zeta: $\zeta$, the upper end of the stretch; a tensor broadcasts to `x`.
        gamma: $\gamma$, the lower end of the stretch; a tensor broadcasts to `x`.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row does not sum to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, zeta < 1, gamma > 0, or
            temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.clipped_softmax(torch.tensor([4.0, 2.0, 0.0]))
        tensor([0.8628, 0.0908, 0.0000])

    Source:
        Bondarenko, Nagel and Blankevoort, 2023, Quantizable Transformers: Removing Outliers by Helping Attention Heads
        Do Nothing, arXiv:2306.12929.
    """
    return apply(ClippedSoftmax(temperature, zeta, gamma), x, dim, mask)
