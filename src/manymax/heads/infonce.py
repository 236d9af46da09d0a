"""Cross-entropy of cosines in one direction: which of the candidates belongs to a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manymax.heads.cosine import CosineHead
from manymax.heads.head import Common

if TYPE_CHECKING:
    from typing_extensions import Unpack


class InfoNCEHead(CosineHead):
    r"""Cosines over a temperature and the cross-entropy of their softmax over the candidates.

    $$L = -\log \frac{e^{s_y}}{\sum_j e^{s_j}}, \qquad s_j = \frac{\cos(h, w_j)}{\tau}$$

    with $h$ the features, $w_j$ a candidate or a class's row, $y$ the one that belongs to $h$ and $\tau$ the
    temperature. With a batch's other embeddings as candidates and the token's number as target these are the in-batch
    negatives of contrastive learning; $\log C$ minus the loss is a lower bound of the mutual information of the pair.

    Args:
        in_features: length of $h$.
        num_classes: the rows that stand in where a call gives no candidates.
        temperature: $\tau$, above 0.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("infonce", in_features=2, num_classes=4, temperature=1.0)
        >>> queries, keys = torch.eye(2), torch.eye(2)
        >>> head(queries, torch.arange(2), candidates=keys)  # log(1 + 1 / e)
        tensor(0.3133, grad_fn=<DivBackward0>)

    Source:
        van den Oord et al., 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748.
        There scores are not cosines; cosines over a temperature: Wu et al., 2018, Unsupervised Feature Learning via
        Non-Parametric Instance-level Discrimination, arXiv:1805.01978.
    """

    def __init__(
        self, in_features: int, num_classes: int, *, temperature: float = 0.07, **common: Unpack[Common]
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)
