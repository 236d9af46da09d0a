"""Comp-sum losses: cross-entropy and its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack

LARGEST = 40.0  # exponent from which on a loss goes on as a line: e^40 times features of 1e4 still fits float32


def phi(log1p_u: Tensor, tau: float) -> Tensor:
    r"""Return $\Phi_\tau(u) = ((1 + u)^{1 - \tau} - 1) / (1 - \tau)$, log(1 + u) at tau = 1, from log(1 + u).

    From $(1 + u)^{1 - \tau} = e^{40}$ on it is the tangent, so that it stays finite where exponentials do not.
    """
    if tau == 1:
        return log1p_u
    exponent = (1 - tau) * log1p_u
    near = exponent.clamp(max=LARGEST)
    return (torch.expm1(near) + (exponent - near) * near.detach().exp()) / (1 - tau)


def comp_sum_loss(scores: Tensor, target: Tensor, tau: float) -> Tensor:
    r"""Compare a target's score with the sum of exponentials of the others'.

    $$\Phi_\tau\Big(\sum_{j \ne y} e^{z_j - z_y}\Big), \qquad \Phi_\tau(u) = \begin{cases} \log(1 + u) & \tau = 1 \\
    ((1 + u)^{1 - \tau} - 1) / (1 - \tau) & \text{otherwise} \end{cases}$$

    with $z$ the scores and $y$ the target.

    Args:
        scores: $z$, (n, C).
        target: $y$, int64 (n,).
        tau: $\tau \ge 0$.

    Returns:
        Losses (n,).

    Source:
        Mao, Mohri and Zhong, 2023, Cross-Entropy Loss Functions: Theoretical Analysis and Applications,
        arXiv:2304.07288.
    """
    return phi(F.cross_entropy(scores, target, reduction="none"), tau)


class CompSumHead(Head):
    r"""Linear classes and a comp-sum loss of their scores.

    $$L = \Phi_\tau\Big(\sum_{j \ne y} e^{z_j - z_y}\Big), \qquad \Phi_\tau(u) = \begin{cases} \log(1 + u) & \tau = 1
    \\ ((1 + u)^{1 - \tau} - 1) / (1 - \tau) & \text{otherwise} \end{cases}, \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $z$ one score a class and $y$ the target. With $p$
    the softmax of $z$: $\tau = 0$ is the sum of exponentials, $\tau = 1$ cross-entropy, $1 < \tau < 2$ generalised
    cross-entropy $(1 - p_y^q) / q$ at $q = \tau - 1$, and $\tau = 2$ the mean absolute error $1 - p_y$. The larger
    $\tau$, the less a wrong label counts and the slower the learning.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        tau: $\tau \ge 0$.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("comp-sum-losses", in_features=8, num_classes=4, tau=2.0)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # 1 - 1/4
        0.75

    Source:
        Mao, Mohri and Zhong, 2023, Cross-Entropy Loss Functions: Theoretical Analysis and Applications,
        arXiv:2304.07288; generalised cross-entropy: Zhang and Sabuncu, 2018, arXiv:1805.07836.
    """

    def __init__(self, in_features: int, num_classes: int, *, tau: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, **common)
        if not tau >= 0:
            raise ValueError(f"tau: expected at least 0, got {tau!r}")
        self.tau = tau

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the comp-sum losses."""
        return comp_sum_loss(scores, target, self.tau)
