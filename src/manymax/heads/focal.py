"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack


def focal_loss(scores: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    r"""Return $-(1 - p_y)^\gamma \log p_y$ with $p$ the softmax of scores (n, C) and $y$ the target (n,)."""
    loss = F.cross_entropy(scores, target, reduction="none")
    missing = -torch.expm1(-loss)  # 1 - p without the cancellation
    return missing.clamp_min(torch.finfo(loss.dtype).tiny).pow(gamma) * loss if gamma else loss


class FocalHead(Head):
    r"""Linear classes and a cross-entropy in which what is known already counts less.

    $$L = -\alpha_y (1 - p_y)^\gamma \log p_y, \qquad p = \operatorname{softmax}(W h + b)$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $y$ the target and $\gamma$ how fast a token's
    weight falls as its class becomes likely; 0 is cross-entropy.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        gamma: $\gamma \ge 0$.
        alpha: $\alpha$, one number of at least 0 for each class; None is 1 for all. A mean over tokens stays one.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("focal", in_features=8, num_classes=2)
        >>> round(head(torch.zeros(3, 8), torch.tensor([0, 1, 0])).item(), 4)  # log 2 / 4
        0.1733

    Source:
        Lin et al., 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002, where each class is asked about by
        itself with a sigmoid; this is its form for classes that exclude each other.
    """

    alpha: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        gamma: float = 2.0,
        alpha: Sequence[float] | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if not gamma >= 0:
            raise ValueError(f"gamma: expected at least 0, got {gamma!r}")
        if alpha is not None and (len(alpha) != num_classes or not all(one >= 0 for one in alpha)):
            raise ValueError(f"alpha: expected {num_classes} numbers of at least 0, got {list(alpha)}")
        self.gamma = gamma
        self.register_buffer("alpha", None if alpha is None else torch.tensor(list(alpha), dtype=torch.float32))

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the focal losses."""
        loss = focal_loss(scores, target, self.gamma)
        return loss if self.alpha is None else self.alpha[target].to(loss.dtype) * loss
