"""Entmax: the family between softmax and sparsemax, and beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.maps.entmax_function import entmax_weights
from manymax.maps.rule import Rule, apply, check_option, hide
from manymax.maps.softmax import Softmax
from manymax.maps.sparsemax import Sparsemax
from manymax.maps.threshold import Threshold


@dataclass(frozen=True)
class Entmax15(Threshold):
    """w = max(x / 2 - tau, 0)^2, by one sort."""

    kernel: ClassVar[str | None] = "entmax15"

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return 1.5-entmax of the visible scores."""
        return entmax_weights(hide(scores, visible), 0.5)


_SPECIAL: dict[float, type[Rule]] = {1: Softmax, 1.5: Entmax15, 2: Sparsemax}


@dataclass(frozen=True)
class AlphaEntmax(Threshold):
    """w = max((alpha - 1) x - tau, 0)^(1 / (alpha - 1)), softmax at alpha = 1."""

    kernel: ClassVar[str | None] = "entmax"

    alpha: float | Tensor = 1.5

    def __post_init__(self) -> None:
        """Refuse an alpha below 1, where the weights are not those of a maximum."""
        super().__post_init__()
        check_option("alpha", self.alpha, lambda alpha: (alpha >= 1) & (alpha < math.inf), "a number of at least 1")

    def simplest(self) -> Rule:
        """Return softmax, 1.5-entmax or sparsemax for the numbers 1, 1.5 and 2."""
        if isinstance(self.alpha, Tensor) or self.alpha not in _SPECIAL:
            return self
        return _SPECIAL[self.alpha](self.temperature)

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return alpha-entmax of the visible scores."""
        scores = hide(scores, visible)
        if isinstance(self.alpha, Tensor):
            return entmax_weights(scores, self._excess(self.alpha, scores))
        return torch.softmax(scores, -1) if self.alpha == 1 else entmax_weights(scores, float(self.alpha) - 1)

    @staticmethod
    def _excess(alpha: Tensor, scores: Tensor) -> Tensor:
        """Return alpha - 1 for each row (..., 1), NaN below 0: there may have been no way to read alpha before."""
        if alpha.dim() > 0 and alpha.shape[-1] != 1:
            raise ValueError(f"alpha: expected size 1 in dim, one value for each row, got {alpha.shape[-1]}")
        excess = alpha.to(scores.dtype) - 1
        return torch.where(excess >= 0, excess, torch.nan).expand(*scores.shape[:-1], 1)


def entmax15(x: Tensor, dim: int = -1, *, mask: Tensor | None = None, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Square what is left of scores above a cut: low scores weigh exactly 0, more gently than with sparsemax.

    $$w_i = \max\left(\frac{x_i}{2 T} - \tau, 0\right)^2$$

    with $T$ the temperature and the cut $\tau$ such that the weights of the visible entries of the row sum to 1. It is
    entmax at alpha = 1.5, half-way between softmax and sparsemax, where the cut is found exactly, by one sort.

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
        >>> mm.entmax15(torch.tensor([1.0, 0.6, -2.0]))
        tensor([0.6400, 0.3600, 0.0000])

    Source:
        Peters, Niculae and Martins, 2019, Sparse Sequence-to-Sequence Models, arXiv:1905.05702.
    """
    return apply(Entmax15(temperature), x, dim, mask)


def entmax(
    x: Tensor,
    alpha: float | Tensor = 1.5,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Normalise scores with a sparsity that alpha sets, from softmax at 1 over sparsemax at 2 to the maximum.

    $$w = \operatorname*{argmax}_{p \ge 0,\ \sum_j p_j = 1} p^\top x / T + H_\alpha(p), \qquad
    w_i = \max\left((\alpha - 1) x_i / T - \tau, 0\right)^{1 / (\alpha - 1)}$$

    with $T$ the temperature, $H_\alpha(p) = \sum_j (p_j - p_j^\alpha) / (\alpha (\alpha - 1))$ the Tsallis entropy
    (Shannon's at $\alpha = 1$), and the cut $\tau$ such that the weights of the visible entries of the row sum to 1.

    Numbers 1, 1.5 and 2 are served by softmax and by the exact algorithms; all else by root finding in a bracket. A
    row sums to 1 within $8 \epsilon$, where $\epsilon$ is 1.2e-7 in float32 and 2.2e-16 in float64. For
    $\alpha \le 2$ each weight is within $4 \epsilon$ of its true value. For $\alpha > 2$ the map has vertical slopes
    where a weight starts: the last place of a score moves a small weight by
    $((\alpha - 1) \epsilon)^{1 / (\alpha - 1)}$, 1e-4 in float32 at $\alpha = 2.7$, and the error is below that.

    The gradient of $\alpha$ is exact as well, also at 1. To keep a learnt one in range, learn $a$ in
    $\alpha = 1 + e^a$ or $1 + \sigma(a)$.

    Args:
        x: scores, any floating dtype and shape.
        alpha: $1 \le \alpha < \infty$; a tensor broadcasts to `x`, with size 1 in `dim`, and may be learnt. A tensor's
            values are checked on the CPU outside of compiled code; elsewhere a value below 1 makes NaN.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, alpha < 1, alpha has more
            than one value for a row, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> x = torch.tensor([1.0, 0.5, -1.0])
        >>> torch.stack([mm.entmax(x, alpha) for alpha in (1.0, 1.3, 2.0, 3.0)])
        tensor([[0.5741, 0.3482, 0.0777],
                [0.6427, 0.3436, 0.0137],
                [0.7500, 0.2500, 0.0000],
                [1.0000, 0.0000, 0.0000]])

    Source:
        Peters, Niculae and Martins, 2019, Sparse Sequence-to-Sequence Models, arXiv:1905.05702; the gradient of alpha
        from Correia, Niculae and Martins, 2019, Adaptively Sparse Transformers, arXiv:1909.00015.
    """
    return apply(AlphaEntmax(temperature, alpha), x, dim, mask)
