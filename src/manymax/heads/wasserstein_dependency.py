"""Contrastive prediction with a critic whose slope is held near 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import Linear, wide
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack

GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, fill [0, 1) evenly


def wpc_loss(
    critic: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    gp: float = 10.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Take the contrastive loss of a critic over a batch of pairs, and a penalty of slopes other than 1.

    $$L = -\frac{1}{N} \sum_i \log \frac{e^{f(x_i, y_i)}}{\sum_j e^{f(x_i, y_j)}} + \lambda \frac{1}{N} \sum_i
    \left( \lVert \nabla_{x, y} f(x_i, \hat y_i) \rVert - 1 \right)^2, \qquad
    \hat y_i = \epsilon_i y_i + (1 - \epsilon_i) y_{\pi(i)}$$

    with $f$ the critic, $\pi$ a random order and $\epsilon_i$ uniform in [0, 1]: points between a pair and one of the
    product of the marginals. A critic of slope 1 measures a Wasserstein distance between the two, where a critic
    without bounds measures mutual information, which takes a batch exponential in it.

    Args:
        critic: takes x (n, ...) and y (m, ...) and returns $f$ of all pairs (n, m), each from its own two alone.
        x: (N, ...).
        y: (N, ...), each the partner of an x.
        gp: $\lambda$, at least 0; 0 is contrastive predictive coding, without a bound.
        generator: source of $\pi$ and $\epsilon$; None is PyTorch's own.

    Returns:
        The loss, with gradients through the penalty.

    Raises:
        ValueError: if gp is negative.

    Example:
        >>> import torch
        >>> from manymax.heads.wasserstein_dependency import wpc_loss
        >>> round(wpc_loss(lambda x, y: x @ y.T, torch.zeros(4, 2), torch.zeros(4, 2), gp=1.0).item(), 4)  # log 4 + 1
        2.3863

    Source:
        Ozair et al., 2019, Wasserstein Dependency Measure for Representation Learning, arXiv:1903.11780; the penalty:
        Gulrajani et al., 2017, Improved Training of Wasserstein GANs, arXiv:1704.00028.
    """
    if not gp >= 0:
        raise ValueError(f"gp: expected at least 0, got {gp!r}")
    count = len(x)
    loss = F.cross_entropy(critic(x, y), torch.arange(count, device=x.device))
    if not gp:
        return loss
    order = torch.randperm(count, generator=generator).to(y.device)
    epsilon = torch.rand(count, *[1] * (y.dim() - 1), generator=generator, dtype=y.dtype).to(y.device)
    between = epsilon * y + (1 - epsilon) * y[order]
    ends = [end if end.requires_grad else end.detach().requires_grad_() for end in (x, between)]
    with torch.enable_grad():
        slopes = torch.autograd.grad(critic(*ends).diagonal().sum(), ends, create_graph=True)
    squares = sum((slope.flatten(1).square().sum(1) for slope in slopes), torch.zeros(count, device=x.device))
    return loss + gp * _missed(squares)


def _missed(squares: Tensor) -> Tensor:
    """Return the mean of (sqrt - 1)^2, with a gradient of 0 where the square is 0."""
    safe = torch.where(squares > 0, squares, 1)
    return torch.where(squares > 0, (safe.sqrt() - 1).square(), 1).mean()


class WassersteinDependencyHead(Head):
    r"""Cross-entropy of dot products, and a penalty that holds the slope of the dot product near 1.

    $$L = -\log \frac{e^{h \cdot w_y}}{\sum_j e^{h \cdot w_j}} + \lambda
    \left( \sqrt{\lVert h \rVert^2 + \lVert \hat w \rVert^2} - 1 \right)^2, \qquad
    \hat w = \epsilon w_y + (1 - \epsilon) w_{y'}$$

    with $h$ the features, $w_j$ a candidate or a class's row and $y$ the one that belongs to $h$. The gradient of the
    critic $h \cdot w$ is $(w, h)$, so that the penalty has a closed form. $y'$ is the next token's target and
    $\epsilon$ of token $i$ the fractional part of $i (\sqrt 5 - 1) / 2$, which is as even as random numbers and the
    same every time. A bias is no part of the slope. For critics of any form there is `wpc_loss`.

    Args:
        in_features: length of $h$.
        num_classes: the rows that stand in where a call gives no candidates.
        gp: $\lambda$, at least 0; 0 is contrastive predictive coding.
        **common: the options of every head; without a reduction the penalty is left out.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("wasserstein-dependency", in_features=2, num_classes=4, gp=1.0)
        >>> round(head(torch.zeros(2, 2), torch.arange(2), candidates=torch.zeros(4, 2)).item(), 4)  # log 4 + 1
        2.3863

    Source:
        Ozair et al., 2019, Wasserstein Dependency Measure for Representation Learning, arXiv:1903.11780. Only the
        abstract was at hand: the points at which the slope is taken follow Gulrajani et al., 2017, arXiv:1704.00028.
    """

    def __init__(self, in_features: int, num_classes: int, *, gp: float = 10.0, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, **common)
        if not gp >= 0:
            raise ValueError(f"gp: expected at least 0, got {gp!r}")
        self.gp = gp

    def forward(self, input: Tensor, target: Tensor, *, candidates: Tensor | None = None) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each a class, a candidate's number, or `ignore_index`.
            candidates: rows (count, in_features) in the place of the classes' own, without bias; None is those.
        """
        if candidates is None:
            return self.reduced(self.scored(input), target)
        if candidates.dim() != 2:
            raise ValueError(f"candidates: expected (count, {self.in_features}), got {tuple(candidates.shape)}")
        return self.reduced(Linear(input, candidates, None), target)

    def term(self, linear: Linear, target: Tensor) -> Tensor | None:
        """Return the penalty, the mean over tokens."""
        if not self.gp or not len(target):
            return None
        dtype = torch.float64 if self.float64 else wide(linear.input.dtype)
        h, w = linear.input.to(dtype), linear.rows.to(dtype)
        epsilon = (torch.arange(1, len(target) + 1, dtype=torch.float64, device=h.device) * GOLDEN).frac()
        epsilon = epsilon.to(dtype)[:, None]
        between = epsilon * w[target] + (1 - epsilon) * w[target.roll(-1)]
        penalty = self.gp * _missed(h.square().sum(-1) + between.square().sum(-1))
        return penalty.to(wide(linear.input.dtype))
