"""Cross-entropy over StableMax."""

from __future__ import annotations

from torch import Tensor

from manymax.heads.head import Head
from manymax.maps.stablemax import log_stablemax


class StableMaxHead(Head):
    r"""Linear classes and the cross-entropy of their StableMax.

    $$L = -\log \frac{s(z_y)}{\sum_j s(z_j)}, \qquad s(z) = \begin{cases} z + 1 & z \ge 0 \\ 1 / (1 - z) & z < 0
    \end{cases}, \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $z$ one score a class and $y$ the target. $s$ grows
    linearly where softmax's exponential lets one class absorb all others in floating point, so that gradients do not
    vanish once the training set fits.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        **common: the options of every head; with float64 the loss is computed as in the authors' code.

    Raises:
        ValueError: if an option is out of range, or a target is not int64 or has another shape than the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("stablemax", in_features=8, num_classes=4, float64=True)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # log 4
        1.3862943649291992

    Source:
        Prieto et al., 2025, Grokking at the Edge of Numerical Stability, arXiv:2501.04697.
    """

    def log_weights(self, scores: Tensor) -> Tensor:
        """Return log StableMax."""
        return log_stablemax(scores, dim=-1)
