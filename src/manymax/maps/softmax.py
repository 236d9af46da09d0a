"""Softmax, its logarithm and its normaliser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.ratio import Ratio, Statistic
from manymax.maps.rule import apply


@dataclass(frozen=True)
class Softmax(Ratio):
    """g(x) = exp(x), relative to the row's maximum."""

    statistic: ClassVar[Statistic] = "max"

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return exp(score - shift)."""
        return torch.exp(score - shift)

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return exp(score - shift): exp is its own derivative."""
        return torch.exp(score - shift)

    def log_scale(self, shift: Tensor) -> Tensor:
        """Return the shift, since exp(x) = exp(x - c) exp(c)."""
        return shift


def softmax(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    """Exponentiate scores and divide by their sum."""
    return apply(Softmax(temperature), x, dim, mask)
