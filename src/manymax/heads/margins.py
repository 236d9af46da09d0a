"""Margins: what takes the place of the target's cosine in a loss, so that it has to be won by more."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.cosine import CosineHead


def angle(cosine: Tensor) -> Tensor:
    """Return the angle of a cosine in radians, with gradients that are finite; where a cosine is 1 or -1, zero."""
    rounding = torch.finfo(cosine.dtype).eps
    return cosine.clamp(rounding - 1, 1 - rounding).acos()


def replaced(scores: Tensor, target: Tensor, own: Tensor) -> Tensor:
    """Return scores (n, C) with the targets' replaced by `own`, (n,)."""
    return scores.scatter(-1, target[:, None], own[:, None])


def at(scores: Tensor, target: Tensor) -> Tensor:
    """Return the targets' scores, (n,), of scores (n, C)."""
    return scores.gather(-1, target[:, None])[:, 0]


class MarginHead(CosineHead):
    """A head of cosines with the cross-entropy of their softmax, in which the target's cosine is another.

    Only the loss has the margin: `logits`, `predict` and `nll` see the cosines as they are.
    """

    @abstractmethod
    def harder(self, cosine: Tensor) -> Tensor:
        """Return what takes the place of targets' cosines, (n,)."""

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy with the margin."""
        own = self.scale * self.harder(at(scores, target) / self.scale)
        return F.cross_entropy(replaced(scores, target, own), target, reduction="none")
