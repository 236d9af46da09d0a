"""Softmax over the k largest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.rule import apply, check_count, hide
from manymax.maps.threshold import Threshold


@dataclass(frozen=True)
class TopkSoftmax(Threshold):
    """Softmax of the scores that are no lower than the k-th largest."""

    kernel: ClassVar[str | None] = "topk_softmax"

    k: int = 8

    def __post_init__(self) -> None:
        """Refuse a k below 1."""
        super().__post_init__()
        check_count("k", self.k, lambda k: k >= 1, "a whole number of at least 1")

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Hide what is below the k-th largest visible score."""
        scores = hide(scores, visible)
        cut = scores.detach().topk(min(self.k, scores.shape[-1]), -1).values[..., -1:]
        return torch.softmax(torch.where(scores < cut, -torch.inf, scores), -1)


def topk_softmax(
    x: Tensor, dim: int = -1, *, mask: Tensor | None = None, k: int = 8, temperature: float | Tensor = 1.0
) -> Tensor:
    r"""Apply softmax to the k largest scores; all others weigh exactly 0.

    $$w_i = \frac{[x_i \ge x_{(k)}]\, e^{x_i / T}}{\sum_j [x_j \ge x_{(k)}]\, e^{x_j / T}}$$

    with $T$ the temperature and $x_{(k)}$ the k-th largest of the visible entries of the row, or the smallest if there
    are fewer than $k$. Scores equal to $x_{(k)}$ are all kept, so that more than $k$ may weigh something: which of them
    were dropped would otherwise hang on their order.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        k: how many scores to keep; at least 1.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, k is not a whole number of
            at least 1, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.topk_softmax(torch.tensor([1.0, 3.0, 2.0, 1.0]), k=2)
        tensor([0.0000, 0.7311, 0.2689, 0.0000])

    Source:
        Zhao et al., 2019, Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection,
        arXiv:1912.11637.
    """
    return apply(TopkSoftmax(temperature, k), x, dim, mask)
