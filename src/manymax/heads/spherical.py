"""The spherical family: losses that see of all scores the target's, their sum and the sum of their squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SphericalName = Literal["z", "mse", "spherical", "taylor"]
NAMES = ("z", "mse", "spherical", "taylor")
LEAST_SHARE = 1e-3  # of an even share: what a class gets whose estimated probability is lower, or negative


class Sums(NamedTuple):
    """What a loss of the family sees of n rows of scores.

    Attributes:
        score: the targets', (n,).
        total: of all scores, (n,).
        squares: the sum of their squares, (n,).
    """

    score: Tensor
    total: Tensor
    squares: Tensor


@dataclass(frozen=True)
class SphericalLoss:
    r"""A loss of the spherical family.

    With $o$ the $C$ scores, $c$ the target, $\mu = \frac{1}{C} \sum_k o_k$ and $\sigma^2 = \frac{1}{C} \sum_k o_k^2 -
    \mu^2$ the losses are

    - "z": $\frac{1}{a} \log(1 + e^{a (b - z_c)})$ with $z_c = (o_c - \mu) / \sigma$; equal scores have $z_c = 0$;
    - "mse": $\sum_k (o_k - [k = c])^2$;
    - "spherical": $-\log \frac{o_c^2 + \epsilon}{\sum_k (o_k^2 + \epsilon)}$;
    - "taylor": $-\log \frac{g(o_c)}{\sum_k g(o_k)}$ with $g(o) = 1 + o + o^2 / 2$.

    Args:
        name: which of them.
        a: how sharply the Z-loss bends, above 0.
        b: where it bends: a target that many standard deviations above the mean is well placed.
        eps: $\epsilon$, above 0.

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> import torch
        >>> SphericalLoss("mse")(torch.tensor([[0.5, 0.0, 1.0]]), torch.tensor([0]))
        tensor([1.2500])

    Source:
        "z": de Brébisson and Vincent, 2016, The Z-loss: a shift and scale invariant classification loss belonging to
        the Spherical Family, arXiv:1604.08859; the others: de Brébisson and Vincent, 2016, An Exploration of Softmax
        Alternatives Belonging to the Spherical Loss Family, arXiv:1511.05042.
    """

    name: SphericalName = "z"
    a: float = 0.1
    b: float = 10.0
    eps: float = 0.01

    def __post_init__(self) -> None:
        """Refuse options out of range."""
        if self.name not in NAMES:
            raise ValueError(f"loss: expected one of {', '.join(NAMES)}, got {self.name!r}")
        if not self.a > 0:
            raise ValueError(f"a: expected a number above 0, got {self.a!r}")
        if not -float("inf") < self.b < float("inf"):
            raise ValueError(f"b: expected a finite number, got {self.b!r}")
        if not self.eps > 0:
            raise ValueError(f"eps: expected a number above 0, got {self.eps!r}")

    def __call__(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the losses (n,) of scores (n, C) and classes (n,)."""
        if self.name == "z":
            scores = standardised(scores)
        picked = scores.gather(-1, target[:, None])[:, 0]
        return self.of(Sums(picked, scores.sum(-1), scores.square().sum(-1)), scores.shape[-1])

    def of(self, sums: Sums, classes: int) -> Tensor:
        """Return the losses (n,) of what the family sees, in its dtype; computed in float64, there are few numbers."""
        dtype = sums.score.dtype
        o, total, squares = (one.double() for one in sums)
        if self.name == "mse":
            return (squares - 2 * o + 1).to(dtype)
        if self.name == "spherical":
            return ((squares + classes * self.eps).log() - (o.square() + self.eps).log()).to(dtype)
        if self.name == "taylor":
            return ((classes + total + squares / 2).log() - (1 + o + o.square() / 2).log()).to(dtype)
        mean, power = total / classes, squares / classes
        variance = power - mean.square()
        # What is left of the difference below the sums' own rounding is noise, and its root's gradient has no bound.
        varied = variance > 8 * torch.finfo(dtype).eps * power
        z = torch.where(varied, (o - mean) / torch.where(varied, variance, 1).sqrt(), 0)
        return (torch.logaddexp(torch.zeros_like(z), self.a * (self.b - z)) / self.a).to(dtype)

    def logits(self, scores: Tensor) -> Tensor:
        """Return linear scores as a layer shows them, highest for the likeliest class.

        For "spherical" and "taylor" these are the logarithms of what takes the place of softmax's exponential, which
        grows in both directions; for the others the scores themselves.
        """
        if self.name == "spherical":
            return (scores.square() + self.eps).log()
        if self.name == "taylor":
            return (1 + scores + scores.square() / 2).log()
        return scores

    def log_weights(self, logits: Tensor) -> Tensor:
        """Return the logarithms of the classes' probabilities along the last dim, of what `logits` returns.

        The scores of "mse" estimate the probabilities: those below a thousandth of an even share are raised to it. The
        Z-loss has no probabilities; softmax of the standardised scores stands in.
        """
        if self.name == "z":
            moved = standardised(logits)
            deviation = moved.square().mean(-1, keepdim=True).sqrt()
            logits = moved / torch.where(deviation > 0, deviation, 1)
        elif self.name == "mse":
            logits = logits.clamp_min(LEAST_SHARE / logits.shape[-1]).log()
        return F.log_softmax(logits, dim=-1)


def standardised(scores: Tensor) -> Tensor:
    """Return scores moved and divided row by row so that their mean is 0 and the largest is 1 or -1.

    Neither changes the Z-loss or what its gradient is along the scores that differ, so that neither is differentiated.
    """
    with torch.no_grad():
        mean = scores.mean(-1, keepdim=True)
        spread = (scores - mean).abs().amax(-1, keepdim=True)
    return (scores - mean) / torch.where(spread > 0, spread, 1)
