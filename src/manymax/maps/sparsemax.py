"""Sparsemax: the point of the simplex that is nearest to the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from manymax.maps.entmax_function import entmax_weights
from manymax.maps.rule import apply, hide
from manymax.maps.threshold import Threshold


@dataclass(frozen=True)
class Sparsemax(Threshold):
    """w = max(x - tau, 0), by one sort."""

    kernel: ClassVar[str | None] = "sparsemax"

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Project the visible scores onto the simplex."""
        return entmax_weights(hide(scores, visible), 1.0)


def sparsemax(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Project scores onto the simplex: low scores weigh exactly 0.

    $$w = \operatorname*{argmin}_{p \ge 0,\ \sum_j p_j = 1} \lVert p - x / T \rVert^2, \qquad
    w_i = \max(x_i / T - \tau, 0)$$

    with $T$ the temperature and the cut $\tau$ such that the weights of the visible entries of the row sum to 1. It is
    found exactly, by one sort. A score weighs 0 at least from $T$ below the largest on.

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
        >>> mm.sparsemax(torch.tensor([1.0, 0.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])

    Source:
        Martins and Astudillo, 2016, From Softmax to Sparsemax: A Sparse Model of Attention and Multi-Label
        Classification, arXiv:1602.02068.
    """
    return apply(Sparsemax(temperature), x, dim, mask)
