"""Pointwise maps: a weight depends on its own score and on how many entries its row shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from manymax.maps.rule import Kind, Rule, count


@dataclass(frozen=True)
class Pointwise(Rule):
    """w_i = f(x_i, n), with n the number of visible entries of the row."""

    kind: ClassVar[Kind] = "pointwise"

    @property
    def sums_to_one(self) -> bool:
        """Return False: no weight knows of the others."""
        return False

    def weight(self, score: Tensor, n: Tensor) -> Tensor:
        """Return f(score, n); n (..., 1) has the scores' dtype and is at least 1."""
        raise NotImplementedError

    def weight_grad(self, score: Tensor, n: Tensor) -> Tensor:
        """Return df/dscore, which a backend needs to go backwards without storing weights."""
        raise NotImplementedError

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Apply f to each score on its own."""
        return self.weight(scores, count(scores, visible).clamp(min=1))
