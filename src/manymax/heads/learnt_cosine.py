"""Cosines whose scale is learnt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from manymax.heads.chunk import Linear
from manymax.heads.cosine import CosineHead
from manymax.heads.head import Common

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LearntCosineHead(CosineHead):
    r"""A head whose scores are $e^{t} \cos(h, w_j)$ with $t$ learnt; subclasses say what loss they have.

    Args:
        in_features: length of $h$.
        num_classes: number of rows.
        scale: what $e^t$ starts from, above 0.
        **common: the options of every head but `bias`.

    Attributes:
        logit_scale: $t$.
    """

    def __init__(self, in_features: int, num_classes: int, *, scale: float, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, scale=scale, **common)
        self.scale = 1.0  # of the rows that the parent multiplies; the learnt one follows
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def scored(self, input: Tensor, candidates: Tensor | None = None) -> Linear:
        """Return the features times the scale, and the rows, all made of length 1."""
        linear = super().scored(input, candidates)
        return linear._replace(input=linear.input * self.logit_scale.exp())
