"""Heads that learn from a teacher beside the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TaughtHead(Head):
    """Cross-entropy and a loss against a teacher, weighted; a subclass says what the second one is.

    Args:
        in_features: length of the features.
        num_classes: number of classes.
        ce_weight: of the cross-entropy where there is a teacher; without one the loss is the cross-entropy.
        kd_weight: of the loss against the teacher.
        **common: the options of every head.

    Raises:
        ValueError: if a weight is negative.
    """

    def __init__(
        self, in_features: int, num_classes: int, *, ce_weight: float, kd_weight: float, **common: Unpack[Common]
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        for name, weight in (("ce_weight", ce_weight), ("kd_weight", kd_weight)):
            if not weight >= 0:
                raise ValueError(f"{name}: expected at least 0, got {weight!r}")
        self.ce_weight, self.kd_weight = ce_weight, kd_weight

    def taught(self, scores: Tensor, target: Tensor, *teacher: Tensor) -> Tensor:
        """Return the loss against the teacher, (n,), for scores (n, C), targets (n,) and the teacher's rows."""
        raise NotImplementedError

    def _both(self, scores: Tensor, target: Tensor, *teacher: Tensor) -> Tensor:
        hard = F.cross_entropy(scores, target, reduction="none")
        return self.ce_weight * hard + self.kd_weight * self.taught(scores, target, *teacher)

    def beside(self, input: Tensor, target: Tensor, *teacher: Tensor) -> Tensor:
        """Return the loss of features and targets with what the teacher says of each token, (..., any) each."""
        for x in teacher:
            if x.shape[:-1] != input.shape[:-1]:
                raise ValueError(f"teacher: expected {(*input.shape[:-1], self.num_classes)}, got {tuple(x.shape)}")
            if x.requires_grad:
                raise ValueError("teacher: expected no requires_grad; detach it, it has no gradient")
        return self.reduced_by(self._both, self.scored(input), target, *teacher)

    def by_logits(self, input: Tensor, target: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss with the teacher's logits (..., num_classes)."""
        if not teacher.is_floating_point() or teacher.shape[-1] != self.num_classes:
            expected = f"floating (..., {self.num_classes})"
            raise ValueError(f"teacher: expected {expected}, got {teacher.dtype} of shape {tuple(teacher.shape)}")
        return self.beside(input, target, teacher)
