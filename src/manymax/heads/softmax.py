"""Cross-entropy over softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import Linear
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SoftmaxHead(Head):
    r"""Linear classes and the cross-entropy of their softmax.

    $$L = -\log \frac{e^{z_y}}{\sum_j e^{z_j}}, \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $z$ one score a class and $y$ the target. With label
    smoothing $\epsilon$ the loss is $(1 - \epsilon) L + \frac{\epsilon}{C} \sum_c L_c$ over all $C$ classes. A target
    may also be a row of probabilities, one a class.

    Args:
        in_features: length of $h$.
        num_classes: $C$, the rows of $W$.
        label_smoothing: $\epsilon$ in [0, 1].
        lse_penalty: a factor of $(\log \sum_j e^{z_j})^2$, which is added to the loss; at least 0.
        **common: the options of every head. Without float64 the scores of all tokens never exist at once, nor does
            any chunk of them in the native kernel.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("softmax", in_features=8, num_classes=4)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # log 4
        1.3862943649291992

    Source:
        Bridle, 1989, Training Stochastic Model Recognition Algorithms as Networks can Lead to Maximum Mutual
        Information Estimation of Parameters, NeurIPS 2; label smoothing: Szegedy et al., 2015, Rethinking the
        Inception Architecture for Computer Vision, arXiv:1512.00567; the penalty: Chowdhery et al., 2022, PaLM,
        arXiv:2204.02311.
    """

    soft_targets = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        label_smoothing: float = 0.0,
        lse_penalty: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing!r}")
        if not lse_penalty >= 0:
            raise ValueError(f"lse_penalty: expected at least 0, got {lse_penalty!r}")
        self.label_smoothing, self.lse_penalty = label_smoothing, lse_penalty

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy and penalty."""
        loss = F.cross_entropy(
            scores,
            target.to(scores.dtype) if target.is_floating_point() else target,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return loss + self.lse_penalty * scores.logsumexp(-1).square() if self.lse_penalty else loss

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss of features scored against any rows; in float32 by `linear_cross_entropy`."""
        if self.float64:
            return super().reduced(linear, target)
        return self.cross_entropy(linear, target, label_smoothing=self.label_smoothing, lse_penalty=self.lse_penalty)
