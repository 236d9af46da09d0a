"""ReLU weights over n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from manymax.maps.pointwise import Pointwise
from manymax.maps.rule import apply


@dataclass(frozen=True)
class ReLU(Pointwise):
    """f(x, n) = max(x, 0) / n."""

    kernel: ClassVar[str | None] = "relu"

    def weight(self, score: Tensor, n: Tensor) -> Tensor:
        """Return max(score, 0) / n."""
        return score.relu() / n

    def weight_grad(self, score: Tensor, n: Tensor) -> Tensor:
        """Return 1 / n where the score is positive."""
        return (score > 0) / n


def relu(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Weigh each score by its positive part over the number of scores.

    $$w_i = \frac{\max(x_i / T, 0)}{n}$$

    with $T$ the temperature and $n$ the number of visible entries of the row. The division keeps the output's size
    when rows get longer; without it a vision transformer loses accuracy.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which $n$ counts.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row does not sum to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.relu(torch.tensor([2.0, -1.0, 0.0, 4.0]))
        tensor([0.5000, 0.0000, 0.0000, 1.0000])

    Source:
        Wortsman et al., 2023, Replacing softmax with ReLU in Vision Transformers, arXiv:2309.08586.
    """
    return apply(ReLU(temperature), x, dim, mask)
