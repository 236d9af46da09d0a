"""StableMax: a softmax whose exponential is replaced by a function that grows linearly; and its logarithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.ratio import Ratio
from manymax.maps.rule import apply


@dataclass(frozen=True)
class StableMax(Ratio):
    """g(x) = x + 1 for x >= 0, 1 / (1 - x) below, which needs no shift."""

    kernel: ClassVar[str | None] = "stablemax"

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return s(score); each branch is kept finite where the other one holds."""
        del shift
        return torch.where(score >= 0, score + 1, 1 / (1 - score.clamp(max=0)))

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return 1 for score >= 0, 1 / (1 - score)^2 below."""
        del shift
        return 1 / (1 - score.clamp(max=0)).square()


@dataclass(frozen=True)
class LogStableMax(StableMax):
    """log w = log g(x) - log sum g, without forming a small weight first."""

    kernel: ClassVar[str | None] = "log_stablemax"
    hidden: ClassVar[float] = -torch.inf

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return log s(score) - log sum s; s has a logarithm of log1p(x) for x >= 0, -log1p(-x) below."""
        logs = torch.where(scores >= 0, scores.clamp(min=0).log1p(), -(-scores.clamp(max=0)).log1p())
        return logs - self.log_total(scores, visible)


def stablemax(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Map scores to positive numbers by a function of linear growth and divide by their sum.

    $$w_i = \frac{s(x_i / T)}{\sum_j s(x_j / T)}, \qquad
    s(x) = \begin{cases} x + 1 & x \ge 0 \\ 1 / (1 - x) & x < 0 \end{cases}$$

    with $T$ the temperature and the sum over the visible entries of the row. Where the largest exponential of a softmax
    absorbs all others by rounding, which stops the learning of a model that fits its data, these sums still see them.

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
        >>> mm.stablemax(torch.tensor([-1.0, 0.0, 1.5]))
        tensor([0.1250, 0.2500, 0.6250])

    Source:
        Prieto et al., 2025, Grokking at the Edge of Numerical Stability, arXiv:2501.04697.
    """
    return apply(StableMax(temperature), x, dim, mask)


def log_stablemax(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Return the logarithm of `stablemax`.

    $$\log w_i = \log s(x_i / T) - \log \sum_j s(x_j / T), \qquad
    \log s(x) = \begin{cases} \log(1 + x) & x \ge 0 \\ -\log(1 - x) & x < 0 \end{cases}$$

    with $T$ the temperature and the sum over the visible entries of the row. Its negative at the target is the loss
    that replaces cross-entropy.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score gets -inf, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Logarithms of weights, of x's shape and dtype.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.log_stablemax(torch.tensor([-1.0, 0.0, 1.5])).exp()
        tensor([0.1250, 0.2500, 0.6250])

    Source:
        Prieto et al., 2025, Grokking at the Edge of Numerical Stability, arXiv:2501.04697.
    """
    return apply(LogStableMax(temperature), x, dim, mask)
