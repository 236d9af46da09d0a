"""Cross-entropy over cosines with a margin on the target's cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from manymax.heads.head import Common
from manymax.heads.margins import MarginHead

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CosFaceHead(MarginHead):
    r"""Softmax of cosines in which the target's cosine counts as smaller than it is.

    $$L = -\log \frac{e^{s (\cos\theta_y - m)}}{e^{s (\cos\theta_y - m)} + \sum_{j \ne y} e^{s \cos \theta_j}}$$

    with $\theta_j$ the angle between the features $h$ and the row $w_j$ of a class, $s$ the scale, $m$ the margin and
    $y$ the target.

    Args:
        in_features: length of $h$.
        num_classes: number of rows.
        margin: $m$, at least 0 and below 2, the distance between the least and the largest cosine.
        scale: $s$, above 0.
        **common: the options of every head but `bias`.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("cosface", in_features=2, num_classes=2, margin=1.0, scale=1.0)
        >>> _ = head.load_state_dict({"weight": torch.eye(2)})
        >>> round(head(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item(), 4)  # log 2: cosines 1 - m and 0
        0.6931

    Source:
        Wang et al., 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition, arXiv:1801.09414.
    """

    def __init__(
        self, in_features: int, num_classes: int, *, margin: float = 0.35, scale: float = 64.0, **common: Unpack[Common]
    ) -> None:
        super().__init__(in_features, num_classes, scale=scale, **common)
        if not 0 <= margin < 2:
            raise ValueError(f"margin: expected a number in [0, 2), got {margin!r}")
        self.margin = margin

    def harder(self, cosine: Tensor) -> Tensor:
        """Return the smaller cosine."""
        return cosine - self.margin
