"""Softplus weights, normalised by their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from manymax.maps.ratio import Ratio
from manymax.maps.rule import apply


@dataclass(frozen=True)
class Softplus(Ratio):
    """g(x) = log(1 + exp(x)), which needs no shift: it grows no faster than x."""

    kernel: ClassVar[str | None] = "softplus"

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return log(1 + exp(score)), which is the score itself, to the last digit of float64, above 40."""
        del shift
        return F.softplus(score, threshold=40.0)

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return 1 / (1 + exp(-score))."""
        del shift
        return torch.sigmoid(score)


def softplus(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Take the softplus of scores and divide by their sum.

    $$w_i = \frac{\log(1 + e^{x_i / T})}{\sum_j \log(1 + e^{x_j / T})}$$

    with $T$ the temperature and the sum over the visible entries of the row. Very negative scores weigh as in softmax,
    very positive ones in proportion to the score. This is the first stage of length-scaled softplus attention, without
    its scale factor.

    In float32 the softplus of a score below about -103 is 0; a row of nothing else has zero weights (float64: -745).

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.softplus(torch.tensor([-9.0, 1.0, 27.0]))
        tensor([4.3584e-06, 4.6383e-02, 9.5361e-01])

    Source:
        Gao and Spratling, 2025, Softplus Attention with Re-weighting Boosts Length Extrapolation in Large Language
        Models, arXiv:2501.13428.
    """
    return apply(Softplus(temperature), x, dim, mask)
