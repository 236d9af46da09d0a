"""Scores that are cosines: features and rows of length 1, times a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import Linear, wide
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack


def unit(x: Tensor) -> Tensor:
    """Return x with rows of length 1 along the last dim, in its dtype; a row of zeros stays, with a zero gradient."""
    high = x.to(wide(x.dtype))
    largest = high.detach().abs().amax(-1, keepdim=True)  # its square would leave float32 from 1.8e19 on
    high = high / torch.where(largest > 0, largest, 1)
    norm = high.norm(dim=-1, keepdim=True)
    return torch.where(largest > 0, high / torch.where(largest > 0, norm, 1), 0).to(x.dtype)


class CosineHead(Head):
    r"""A head whose scores are $s \cos(h, w_j)$, with $h$ the features, $w_j$ a class's row and $s$ the scale.

    Subclasses say what loss the scores have. The rows need not be classes: `candidates` takes their place, such as the
    other tower's embeddings of a dual encoder; targets then say which candidate belongs to a token.

    Args:
        in_features: length of $h$.
        num_classes: number of rows.
        scale: $s$, above 0.
        **common: the options of every head but `bias`.

    Raises:
        ValueError: if the scale is not positive or a bias is asked for.
    """

    def __init__(self, in_features: int, num_classes: int, *, scale: float, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, **common)
        if self.bias is not None:
            raise ValueError("bias: expected False, a cosine has none, got True")
        if not scale > 0:
            raise ValueError(f"scale: expected a number above 0, got {scale!r}")
        self.scale = scale

    def scored(self, input: Tensor, candidates: Tensor | None = None) -> Linear:
        """Return the features times the scale, and the rows, all made of length 1."""
        rows = self.weight if candidates is None else candidates
        if rows.dim() != 2:
            raise ValueError(f"candidates: expected (count, {self.in_features}), got {tuple(rows.shape)}")
        return Linear(unit(input) * self.scale, unit(rows), None)

    def logits(self, input: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return the scores, (..., num_classes) or one for each candidate."""
        return F.linear(*self.scored(input, candidates))

    def forward(self, input: Tensor, target: Tensor, *, candidates: Tensor | None = None) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each a class, a candidate's number, or `ignore_index`; where the head takes soft
                targets also floating (..., rows). It has no gradient.
            candidates: rows (count, in_features) in the place of the classes' own; None is those.
        """
        return self.reduced(self.scored(self.clear(input, target), candidates), target)
