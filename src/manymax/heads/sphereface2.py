"""One binary problem a class over cosines: no softmax, and so no class that competes with another."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.chunk import Linear
from manymax.heads.cosine import CosineHead
from manymax.heads.head import Common
from manymax.heads.margins import angle, at, replaced

if TYPE_CHECKING:
    from typing_extensions import Unpack

Margin: TypeAlias = Literal["C", "A", "M"]


class SphereFace2Head(CosineHead):
    r"""One logistic loss a class, with a margin, on cosines whose spread is adjusted.

    $$L = \frac{\lambda}{r} \log\left(1 + e^{-r p(\theta_y) - b}\right) + \frac{1 - \lambda}{r} \sum_{j \ne y}
    \log\left(1 + e^{r q(\theta_j) + b}\right), \qquad g(z) = 2 \left(\frac{z + 1}{2}\right)^t - 1$$

    with $\theta_j$ the angle between the features $h$ and the row $w_j$ of a class, $y$ the target, $\lambda$ the
    target's weight against all others, $r$ the scale, $b$ a learnt number and $g$ what spreads cosines that lie close
    together. The kinds of margin $m$ are

    - "C": $p(\theta) = g(\cos\theta) - m$ and $q(\theta) = g(\cos\theta) + m$;
    - "A": $p(\theta) = g(\cos\min(\pi, \theta + m))$ and $q(\theta) = g(\cos\theta)$;
    - "M": $p(\theta) = g(\cos\min(\pi, m \theta))$ and $q(\theta) = g(\cos\theta)$.

    $b$ starts where the loss is least when all cosines are 0. `logits` are $r g(\cos\theta_j) + b$, without the margin.

    Args:
        in_features: length of $h$.
        num_classes: number of rows, at least 2.
        kind: "C", "A" or "M".
        margin: $m$; at least 0, for "M" at least 1.
        scale: $r$, above 0.
        balance: $\lambda$ in (0, 1).
        t: the exponent of $g$, above 0.
        straight_through: whether gradients pass from $p$ and $q$ to the cosine as if they were the cosine itself, as in
            the authors' code; otherwise they are the loss's own.
        **common: the options of every head but `bias`.

    Attributes:
        b: $b$, a parameter.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("sphereface2", in_features=8, num_classes=4, kind="A", margin=0.5)
        >>> round(head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item(), 4), round(head.b.item(), 2)
        (0.1622, 31.25)

    Source:
        Wen et al., 2021, SphereFace2: Binary Classification is All You Need for Deep Face Recognition,
        arXiv:2108.01513. "A" and "M" are as in an earlier version of the authors' code (OpenSphere); its last has "C"
        alone. There the loss is multiplied by 50, and classes' rows are made of length 1 in place after each step.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        kind: Margin = "C",
        margin: float = 0.4,
        scale: float = 40.0,
        balance: float = 0.7,
        t: float = 3.0,
        straight_through: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, scale=scale, **common)
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        if kind not in {"C", "A", "M"}:
            raise ValueError(f"kind: expected 'C', 'A' or 'M', got {kind!r}")
        if not margin >= (least := 1 if kind == "M" else 0):
            raise ValueError(f"margin: expected at least {least} for kind {kind!r}, got {margin!r}")
        if not 0 < balance < 1:
            raise ValueError(f"balance: expected a number in (0, 1), got {balance!r}")
        if not t > 0:
            raise ValueError(f"t: expected a number above 0, got {t!r}")
        self.kind, self.margin, self.balance, self.t = kind, margin, balance, t
        self.straight_through = straight_through
        self.b = nn.Parameter(torch.tensor(self._start(num_classes)))

    def _start(self, num_classes: int) -> float:
        """Return the b whose loss is least where all cosines are 0: its exponential is the root of a quadratic.

        With u = e^b and z the positive's weight over all negatives' together, the derivative's zero is at
        e^(own + other) u^2 + e^other (1 - z) u - z = 0; of its two forms the one without a difference is taken.
        """
        zero = torch.zeros((), dtype=torch.float64)
        own, other = (self.scale * float(x) for x in (self.own(zero), self.other(zero)))
        z = self.balance / ((1 - self.balance) * (num_classes - 1))
        root = math.sqrt((1 - z) ** 2 + 4 * z * math.exp(own - other))
        if z < 1:
            return math.log(2 * z) - other - math.log(1 - z + root)
        return math.log((z - 1 + root) / 2) - own

    def spread(self, cosine: Tensor) -> Tensor:
        """Return g; a cosine that rounding has brought below -1 is -1."""
        return 2 * ((cosine + 1) / 2).clamp_min(0) ** self.t - 1

    def own(self, cosine: Tensor) -> Tensor:
        """Return p for the targets' cosines."""
        if self.kind == "C":
            return self.spread(cosine) - self.margin
        theta = angle(cosine)
        larger = theta + self.margin if self.kind == "A" else theta * self.margin
        return self.spread(larger.clamp_max(math.pi).cos())

    def other(self, cosine: Tensor) -> Tensor:
        """Return q for any cosines."""
        spread = self.spread(cosine)
        return spread + self.margin if self.kind == "C" else spread

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss; b stays that of this call, which a backward pass may outlive."""
        return self.reduced_by(partial(self._losses, self.b), linear, target)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the logistic losses."""
        return self._losses(self.b, scores, target)

    def _losses(self, b: Tensor, scores: Tensor, target: Tensor) -> Tensor:
        cosine = scores / self.scale
        adjusted = replaced(self.other(cosine), target, self.own(at(cosine, target)))
        if self.straight_through:
            adjusted = cosine + (adjusted - cosine).detach()
        logits = self.scale * adjusted + b.to(scores.dtype)
        negative = (1 - self.balance) * F.softplus(logits)
        positive = self.balance * F.softplus(-at(logits, target))
        return replaced(negative, target, positive).sum(-1) / self.scale

    def logits(self, input: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return the scores of the binary problems without margin, (..., num_classes) or one for each candidate."""
        cosine = super().logits(input, candidates) / self.scale
        return self.scale * self.spread(cosine) + self.b.to(cosine.dtype)
