"""Sigmoid weights with the bias -log n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.pointwise import Pointwise
from manymax.maps.rule import apply


@dataclass(frozen=True)
class Sigmoid(Pointwise):
    """f(x, n) = 1 / (1 + exp(-(x + b))), b = -log n unless given."""

    kernel: ClassVar[str | None] = "sigmoid"
    bias: float | Tensor | None = None

    def _shifted(self, score: Tensor, n: Tensor) -> Tensor:
        return score - torch.log(n) if self.bias is None else score + self.bias

    def weight(self, score: Tensor, n: Tensor) -> Tensor:
        """Return sigmoid(score + b)."""
        return torch.sigmoid(self._shifted(score, n))

    def weight_grad(self, score: Tensor, n: Tensor) -> Tensor:
        """Return w (1 - w)."""
        w = self.weight(score, n)
        return w * (1 - w)


def sigmoid(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    bias: float | Tensor | None = None,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Weigh each score by a sigmoid of its own, with a bias that keeps the row's sum near 1.

    $$w_i = \sigma(x_i / T + b) = \frac{1}{1 + e^{-(x_i / T + b)}}, \qquad b = -\log n$$

    with $T$ the temperature, $b$ the bias and $n$ the number of visible entries of the row. At scores near 0 the
    weights are near 1/n, as softmax's are; unlike softmax's they do not compete.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which $n$ counts.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        bias: $b$; None is $-\log n$. A tensor broadcasts to `x`.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row does not sum to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.sigmoid(torch.zeros(4))
        tensor([0.2000, 0.2000, 0.2000, 0.2000])

    Source:
        Ramapuram et al., 2024, Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv:2409.04431.
    """
    return apply(Sigmoid(temperature, bias), x, dim, mask)
