"""Cross-entropy over softmax."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from manymax.heads.head import Head, Reduction


class SoftmaxHead(Head):
    r"""Linear classes and the cross-entropy of their softmax.

    $$L = -\log \frac{e^{z_y}}{\sum_j e^{z_j}}, \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $z$ one score a class and $y$ the target. With label
    smoothing $\epsilon$ the loss is $(1 - \epsilon) L + \frac{\epsilon}{C} \sum_c L_c$ over all $C$ classes.

    Args:
        in_features: length of $h$.
        num_classes: $C$, the rows of $W$.
        bias: whether there is a $b$.
        reduction: "mean" over the targets that count, "sum", or "none".
        ignore_index: a target that takes no part.
        float64: compute the loss in float64, which postpones the absorption errors that stop training once every
            training example fits; the result is float32 again.
        label_smoothing: $\epsilon$ in [0, 1].

    Raises:
        ValueError: if an option is out of range, or a target is not int64 or has another shape than the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("softmax", in_features=8, num_classes=4)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # log 4
        1.3862943649291992

    Source:
        Bridle, 1989, Training Stochastic Model Recognition Algorithms as Networks can Lead to Maximum Mutual
        Information Estimation of Parameters, NeurIPS 2; label smoothing: Szegedy et al., 2015, Rethinking the
        Inception Architecture for Computer Vision, arXiv:1512.00567.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        float64: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            in_features, num_classes, bias=bias, reduction=reduction, ignore_index=ignore_index, float64=float64
        )
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing!r}")
        self.label_smoothing = label_smoothing

    def log_weights(self, scores: Tensor) -> Tensor:
        """Return log softmax."""
        return F.log_softmax(scores, dim=-1)

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy in one pass instead of through `log_weights`; torch fuses it."""
        return F.cross_entropy(
            scores,
            target,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )
