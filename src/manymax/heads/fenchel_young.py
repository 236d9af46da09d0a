"""Fenchel-Young losses: the loss that belongs to a map from scores to weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.head import Common, Head
from manymax.maps.entmax import entmax

if TYPE_CHECKING:
    from typing_extensions import Unpack


def fenchel_young(
    scores: Tensor, target: Tensor, weigh: Callable[[Tensor], Tensor], entropy: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""Return the loss whose gradient is a map's weights less the target's.

    $$L(z, q) = \max_p \big(p^\top z + H(p)\big) - q^\top z - H(q)$$

    with $p$ and $q$ on the simplex and $H$ the entropy of which the map is the argmax. It is 0 exactly where the map
    gives $q$, convex, and its gradient is $p - q$.

    Args:
        scores: $z$, (n, C).
        target: classes int64 (n,), or $q$ itself, (n, C).
        weigh: the map, scores to $p$ along the last dim.
        entropy: $H$ along the last dim, (n, C) to (n,); 0 where one weight is 1.

    Returns:
        Losses (n,).

    Source:
        Blondel, Martins and Niculae, 2019, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """
    soft = target.is_floating_point()
    wanted = target.to(scores.dtype) if soft else F.one_hot(target, scores.shape[-1]).to(scores.dtype)
    with torch.no_grad():  # the maximum's gradient is that of what is maximised, with p held
        weights = weigh(scores)
    shift = scores.detach().amax(-1, keepdim=True) if soft else scores.detach().gather(-1, target[:, None])
    loss: Tensor = ((weights - wanted) * (scores - shift)).sum(-1) + entropy(weights)
    if soft:
        return loss - entropy(wanted)
    return loss


def tsallis_entropy(weights: Tensor, alpha: float) -> Tensor:
    r"""Return $\sum_j (p_j - p_j^\alpha) / (\alpha (\alpha - 1))$, Shannon's entropy at alpha = 1, of rows (..., C)."""
    if alpha == 1:
        found: Tensor = torch.special.entr(weights).sum(-1)
        return found
    return (weights - weights.pow(alpha)).sum(-1) / (alpha * (alpha - 1))


class EntmaxHead(Head):
    r"""Linear classes and the Fenchel-Young loss of entmax, which is 0 once a class leads by enough.

    $$L = \max_p \big(p^\top z + H_\alpha(p)\big) - z_y, \qquad z = W h + b, \qquad
    H_\alpha(p) = \sum_j \frac{p_j - p_j^\alpha}{\alpha (\alpha - 1)}$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $z$ one score a class, $y$ the target and $p$ on the
    simplex; the maximum is at $p = \operatorname{entmax}_\alpha(z)$. The loss is 0 as soon as $z_y$ leads by
    $1 / (\alpha - 1)$. At $\alpha = 1$ it is cross-entropy. A target may also be a row $q$ of probabilities, and
    then $L$ has $q^\top z + H_\alpha(q)$ in the place of $z_y$.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        alpha: $1 \le \alpha < \infty$.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("entmax", in_features=8, num_classes=4, alpha=2.0)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # (1 - 4 / 16) / 2
        0.375

    Source:
        Peters, Niculae and Martins, 2019, Sparse Sequence-to-Sequence Models, arXiv:1905.05702; Blondel, Martins and
        Niculae, 2019, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """

    soft_targets = True

    def __init__(self, in_features: int, num_classes: int, *, alpha: float = 1.5, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, **common)
        if not 1 <= alpha < float("inf"):
            raise ValueError(f"alpha: expected a number of at least 1, got {alpha!r}")
        self.alpha = alpha

    def weigh(self, scores: Tensor) -> Tensor:
        """Return the classes' weights, many of them 0."""
        return entmax(scores, self.alpha)

    def log_weights(self, scores: Tensor) -> Tensor:
        """Return the logarithm of entmax, -inf where it is 0."""
        return F.log_softmax(scores, dim=-1) if self.alpha == 1 else self.weigh(scores).log()

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the Fenchel-Young losses."""
        return fenchel_young(scores, target, self.weigh, lambda weights: tsallis_entropy(weights, self.alpha))


class SparsemaxHead(EntmaxHead):
    r"""Linear classes and the Fenchel-Young loss of sparsemax, which is 0 once a class leads by 1.

    $$L = \frac{1}{2} \sum_{j \in S} (z_j^2 - \tau^2) + \frac{1}{2} - z_y, \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $z$ one score a class, $y$ the target, $S$ the
    classes to which sparsemax gives weight and $\tau$ its cut. It is the entmax head at alpha = 2.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("sparsemax", in_features=8, num_classes=4)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # (1 - 4 / 16) / 2
        0.375

    Source:
        Martins and Astudillo, 2016, From Softmax to Sparsemax: A Sparse Model of Attention and Multi-Label
        Classification, arXiv:1602.02068; Blondel, Martins and Niculae, 2019, arXiv:1901.02324.
    """

    def __init__(self, in_features: int, num_classes: int, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, alpha=2.0, **common)
