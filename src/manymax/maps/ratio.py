"""Ratio maps: g(score) over the row's sum of g, the family of softmax.

    w_i = g(x_i) / (extra + sum_j g(x_j))

g may grow without bound, so that it is computed relative to a shift c, a statistic of the row: numerator(x, c) is
g(x) / exp(log_scale(c)). The weights do not depend on c, which is why two parts of a row, each with its own c, merge:
sums are rescaled by exp(log_scale(c_old) - log_scale(c_new)). Tiled and native attention rest on this alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from manymax.maps.rule import Kind, Rule, count, keep

Statistic = Literal["none", "max", "absmax"]
SMALLEST_SCALE = 1e-30  # as a divisor in float32 it leaves room above 1 / 1e-30 for a derivative's factors


@dataclass(frozen=True)
class Ratio(Rule):
    """w_i = g(x_i) / (extra + sum_j g(x_j)), with g given relative to a shift of the row."""

    kind: ClassVar[Kind] = "ratio"
    statistic: ClassVar[Statistic] = "none"  # what of the row the shift is: nothing, max(x) or max|x|

    @property
    def sums_to_one(self) -> bool:
        """Return True; maps whose `extra` is not 0 say False."""
        return True

    @property
    def floor(self) -> float:
        """Return what the shift is never below."""
        return -torch.inf

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return g(score) / exp(log_scale(shift)); shift broadcasts to score."""
        raise NotImplementedError

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return the derivative of `numerator` in score at constant shift."""
        raise NotImplementedError

    def log_scale(self, shift: Tensor) -> Tensor:
        """Return the logarithm of what the shift divides g by."""
        return torch.zeros_like(shift)

    def extra(self, n: Tensor) -> Tensor | None:
        """Return what the denominator adds to the sum of g, given the number n of visible entries; None is nothing."""
        del n
        return None

    def shift(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return the row's shift (..., 1), without gradient, since the weights do not depend on it."""
        if self.statistic == "none":
            return torch.zeros_like(scores[..., :1])
        size = scores.detach()
        size = size if self.statistic == "max" else size.abs()
        return self.finite(keep(size, visible, -torch.inf).amax(-1, keepdim=True))

    def finite(self, shift: Tensor) -> Tensor:
        """Return the shift raised to the floor, and 0 for a row (so far) without a visible entry."""
        shift = shift.clamp(min=self.floor)
        return torch.where(shift == -torch.inf, 0, shift)

    def sums(self, scores: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return numerators (..., n), their total with `extra` (..., 1), both relative to the shift (..., 1)."""
        shift = self.shift(scores, visible)
        numerators = keep(self.numerator(scores, shift), visible, 0)
        total = numerators.sum(-1, keepdim=True)
        extra = self.extra(count(scores, visible))
        if extra is not None:
            total = total + extra * torch.exp(-self.log_scale(shift))
        return numerators, total, shift

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Divide each numerator by the row's total; a row whose total is 0 has zero weights."""
        numerators, total, _ = self.sums(scores, visible)
        return numerators / torch.where(total == 0, 1, total)

    def log_total(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return log(extra + sum_j g(x_j)) (..., 1): for softmax the log-sum-exp."""
        _, total, shift = self.sums(scores, visible)
        empty = total == 0
        return torch.where(empty, -torch.inf, torch.log(torch.where(empty, 1, total)) + self.log_scale(shift))
