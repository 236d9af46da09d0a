"""Cross-entropy over cosines with a margin on the target's angle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manymax.heads.head import Common
from manymax.heads.margins import MarginHead, angle

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ArcFaceHead(MarginHead):
    r"""Softmax of cosines in which the target's angle counts as larger than it is.

    $$L = -\log \frac{e^{s \cos(\theta_y + m)}}{e^{s \cos(\theta_y + m)} + \sum_{j \ne y} e^{s \cos \theta_j}}$$

    with $\theta_j$ the angle in radians between the features $h$ and the row $w_j$ of a class, $s$ the scale, $m$ the
    margin and $y$ the target. Beyond $\theta_y = \pi - m$ the cosine rises again, and the gradient would push such
    features away from their class; with `monotone` it is $\cos \theta_y - m \sin m$ there, which falls on.

    Args:
        in_features: length of $h$.
        num_classes: number of rows.
        margin: $m$ in radians, at least 0 and below $\pi$.
        scale: $s$, above 0.
        monotone: whether the target's score falls with its angle everywhere.
        **common: the options of every head but `bias`.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("arcface", in_features=2, num_classes=2, margin=0.5, scale=1.0)
        >>> _ = head.load_state_dict({"weight": torch.eye(2)})
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> round(head(x, torch.tensor([0])).item(), 3), round(head.nll(x, torch.tensor([0])).item(), 3)
        (0.348, 0.313)

    Source:
        Deng et al., 2018, ArcFace: Additive Angular Margin Loss for Deep Face Recognition, arXiv:1801.07698; the
        monotone form is that of the authors' code.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        margin: float = 0.5,
        scale: float = 64.0,
        monotone: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, scale=scale, **common)
        if not 0 <= margin < math.pi:
            raise ValueError(f"margin: expected an angle in [0, pi), got {margin!r}")
        self.margin, self.monotone = margin, monotone

    def harder(self, cosine: Tensor) -> Tensor:
        """Return the cosine of the larger angle."""
        larger = (angle(cosine) + self.margin).cos()
        if not self.monotone:
            return larger
        beyond = cosine < -math.cos(self.margin)  # cos(pi - m)
        return torch.where(beyond, cosine - self.margin * math.sin(self.margin), larger)
