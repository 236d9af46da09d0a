"""One support vector machine a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import Linear
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack

Multiclass = Literal["one-vs-rest", "crammer-singer"]


def hinge(scores: Tensor, target: Tensor, *, p: int = 2, multiclass: Multiclass = "one-vs-rest") -> Tensor:
    r"""Return how far each token is from being right by a margin of 1.

    $$\sum_k \max(0, 1 - t_k z_k)^p, \qquad t_k = 1 \text{ if } k = y \text{ else } -1$$

    for one machine a class, or $\max(0, 1 + \max_{k \ne y} z_k - z_y)^p$ for all classes at once (Crammer and Singer).

    Args:
        scores: $z$, (n, C).
        target: $y$, int64 (n,).
        p: 1 or 2.
        multiclass: one of the two sums.

    Returns:
        Losses (n,).
    """
    if multiclass == "one-vs-rest":
        signs = torch.full_like(scores, -1).scatter_(1, target[:, None], 1)
        return F.relu(1 - signs * scores).pow(p).sum(1)
    own = scores.gather(1, target[:, None])
    margins = (1 + scores - own).scatter(1, target[:, None], 0)  # a lone class leaves 0
    return F.relu(margins.amax(1)).pow(p)


class SVMHead(Head):
    r"""Linear classes, each a support vector machine against the rest.

    $$L = \frac{1}{2} \lVert W \rVert^2 + C \sum_i \sum_k \max(0, 1 - t_{ik} z_{ik})^p, \qquad z_i = W h_i + b$$

    with $h_i$ a token's features, $W$ and $b$ the head's weight and bias, $t_{ik} = 1$ if $k$ is the token's class and
    $-1$ otherwise. As written it is `reduction="sum"`; "mean" divides the sum over tokens, not the norm, by their
    number, and "none" leaves the norm out. A prediction is the highest score. The scores are no log-probabilities:
    `nll` reads them as softmax would.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        C: what a margin that is missed costs; at least 0.
        p: 2 squares what is missing to a margin, 1 does not.
        multiclass: "one-vs-rest", or "crammer-singer" for $\max(0, 1 + \max_{k \ne y} z_k - z_y)^p$ in the place of
            the sum over classes.
        averaged: take means over the entries of $W$ (without the half) and over classes, as the authors' code does.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("cnn-svm", in_features=8, num_classes=4)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item() > 4  # each score misses its margin by 1
        True

    Source:
        Agarap, 2017, An Architecture Combining Convolutional Neural Network (CNN) and Support Vector Machine (SVM) for
        Image Classification, arXiv:1712.03541, after Tang, 2013, Deep Learning using Linear Support Vector Machines,
        arXiv:1306.0239. Its code predicts the first positive score; here the highest counts.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        C: float = 1.0,
        p: int = 2,
        multiclass: Multiclass = "one-vs-rest",
        averaged: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if not C >= 0:
            raise ValueError(f"C: expected at least 0, got {C!r}")
        if p not in {1, 2}:
            raise ValueError(f"p: expected 1 or 2, got {p!r}")
        if multiclass not in {"one-vs-rest", "crammer-singer"}:
            raise ValueError(f"multiclass: expected 'one-vs-rest' or 'crammer-singer', got {multiclass!r}")
        self.C, self.p, self.multiclass, self.averaged = C, p, multiclass, averaged

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return what the margins that are missed cost."""
        cost = self.C * hinge(scores, target, p=self.p, multiclass=self.multiclass)
        return cost / self.num_classes if self.averaged else cost

    def term(self, linear: Linear, target: Tensor) -> Tensor:
        """Return half the squared norm of the weight."""
        del target
        squares = linear.rows.to(torch.promote_types(linear.rows.dtype, torch.float32)).square()
        return squares.mean() if self.averaged else squares.sum() / 2
