"""What every head shares: a linear map to one score a class, and a loss from the scores' logarithmic weights."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Reduction = Literal["none", "mean", "sum"]


class Head(nn.Module):
    """Features to a loss. A subclass says what `log_weights` makes of the scores; the rest is the same for all.

    Attributes:
        weight: (num_classes, in_features), one row a class.
        bias: (num_classes,) or None.
        ignore_index: a target that takes no part in the loss.
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
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("num_classes", num_classes)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if reduction not in {"none", "mean", "sum"}:
            raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
        self.in_features, self.num_classes = in_features, num_classes
        self.reduction, self.ignore_index, self.float64 = reduction, ignore_index, float64
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def logits(self, input: Tensor) -> Tensor:
        """Return one score a class, (..., num_classes), in the input's dtype."""
        return F.linear(input, self.weight, self.bias)

    def log_weights(self, scores: Tensor) -> Tensor:
        """Return the logarithm of the classes' weights along the last dim; a row's weights sum to 1."""
        raise NotImplementedError

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return minus the target's logarithmic weight, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each in [0, num_classes) or `ignore_index`.
        """
        if target.dtype != torch.int64 or target.shape != input.shape[:-1]:
            raise ValueError(
                f"target: expected torch.int64 of shape {tuple(input.shape[:-1])}, "
                f"got {target.dtype} of shape {tuple(target.shape)}"
            )
        scores = self.logits(input).flatten(0, -2)
        result = torch.promote_types(scores.dtype, torch.float32)
        scores = scores.to(torch.float64 if self.float64 else result)
        loss = self.loss(scores, target.flatten()).to(result)
        return loss.view(target.shape) if self.reduction == "none" else loss

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the reduced loss of scores (n, num_classes) and targets (n,)."""
        return F.nll_loss(self.log_weights(scores), target, reduction=self.reduction, ignore_index=self.ignore_index)

    def extra_repr(self) -> str:
        """Show the sizes, as `nn.Linear` does."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.bias is not None}"
