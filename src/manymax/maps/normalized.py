"""Normalised weights: scores with mean and spread taken out, which leave the simplex."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manymax.maps.coupled import Coupled
from manymax.maps.rule import apply, check_option, count, keep


@dataclass(frozen=True)
class Normalized(Coupled):
    """w = gain (x - mean) / (std + eps) + bias."""

    gain: float | Tensor = 1.0
    bias: float | Tensor = 0.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse an eps that does not keep the division finite."""
        super().__post_init__()
        check_option("eps", self.eps, lambda eps: eps > 0, "a number above 0")

    @property
    def sums_to_one(self) -> bool:
        """Return False: a row sums to n times the bias."""
        return False

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Normalise over the visible entries; at no spread its square root has no derivative, and none is needed."""
        n = count(scores, visible).clamp(min=1)
        mean = keep(scores, visible, 0).sum(-1, keepdim=True) / n
        centred = keep(scores - mean, visible, 0)
        variance = centred.square().sum(-1, keepdim=True) / n
        flat = variance == 0
        std = torch.where(flat, 0, torch.where(flat, 1, variance).sqrt())
        return self.gain * centred / (std + self.eps) + self.bias


def normalized(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    gain: float | Tensor = 1.0,
    bias: float | Tensor = 0.0,
    eps: float = 1e-3,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Take mean and spread out of scores; weights may be negative and exceed 1.

    $$w_i = g \frac{x_i / T - \mu}{\sigma + \varepsilon} + b, \qquad \mu = \frac{1}{n} \sum_j x_j / T, \qquad
    \sigma^2 = \frac{1}{n} \sum_j (x_j / T - \mu)^2$$

    with $T$ the temperature, $g$ the gain, $b$ the bias, and the sums over the $n$ visible entries of the row. An
    output of attention is then not confined to the convex hull of the values. In the paper gain and bias are learnt for
    each head, and scores are not divided by the root of the head's size.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        gain: $g$; a tensor broadcasts to `x`.
        bias: $b$; a tensor broadcasts to `x`.
        eps: $\varepsilon > 0$.
        temperature: $T > 0$; a tensor broadcasts to `x`. It only matters together with `eps`.

    Returns:
        Weights of x's shape and dtype; a row sums to $n b$.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, eps <= 0, or
            temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> mm.normalized(torch.tensor([1.0, 2.0, 6.0, 7.0]), eps=1e-6)
        tensor([-1.1767, -0.7845,  0.7845,  1.1767])

    Source:
        Richter and Wattenhofer, 2020, Normalized Attention Without Probability Cage, arXiv:2005.09561.
    """
    return apply(Normalized(temperature, gain, bias, eps), x, dim, mask)
