"""Symmetric cross-entropy of pairs, with a learnt temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manymax.heads.chunk import Linear
from manymax.heads.head import Common
from manymax.heads.learnt_cosine import LearntCosineHead

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CLIPHead(LearntCosineHead):
    r"""Cross-entropy of cosines in both directions: of a token's candidates, and of a candidate's tokens.

    $$L_i = -\frac{1}{2} \left( \log \frac{e^{s_{i y_i}}}{\sum_j e^{s_{ij}}} +
    \log \frac{e^{s_{i y_i}}}{\sum_k e^{s_{k y_i}}} \right), \qquad s_{ij} = e^t \cos(h_i, w_j)$$

    with $h_i$ the features, $w_j$ a candidate or a class's row, $y_i$ the one that belongs to $h_i$, $k$ over the
    tokens that count and $t$ learnt. Two passes over the pairs keep a chunk's scores at a time. Several tokens may have
    the same target; each is then one of the other's negatives in the second term.

    Args:
        in_features: length of $h$.
        num_classes: the rows that stand in where a call gives no candidates.
        temperature: what $e^{-t}$ starts from, above 0. The authors keep $e^t$ at 100 or below, which is one line
            after a step: `head.logit_scale.data.clamp_(max=math.log(100))`.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("clip", in_features=2, num_classes=4, temperature=1.0)
        >>> head(torch.eye(2), torch.arange(2), candidates=torch.eye(2)).item()  # log(1 + 1 / e)
        0.31326165795326233

    Source:
        Radford et al., 2021, Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020;
        tokens that share a target: Yang et al., 2022, Unified Contrastive Learning in Image-Text-Label Space,
        arXiv:2204.03610.
    """

    def __init__(
        self, in_features: int, num_classes: int, *, temperature: float = 0.07, **common: Unpack[Common]
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return half the loss of each direction."""
        there = super().reduced(linear, target)
        flat, wanted = linear.flat(), target.reshape(-1)
        kept = wanted != self.ignore_index
        tokens = flat.input[kept]
        # Each token's own row, asked which of the tokens it is; its score is the same number as the other way round.
        places = torch.full_like(wanted, self.ignore_index).masked_scatter(
            kept, torch.arange(len(tokens), device=wanted.device)
        )
        asking = flat.rows[torch.where(kept, wanted, 0)]
        if not len(tokens):
            return there
        back = super().reduced(Linear(asking, tokens, None), places)
        return (there + back.view(there.shape)) / 2
