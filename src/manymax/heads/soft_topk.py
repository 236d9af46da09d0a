"""A soft top-k of scores, its logarithm as a loss, and both gradients in closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.cosine import CosineHead
from manymax.heads.head import Common

if TYPE_CHECKING:
    from typing_extensions import Unpack

POLISH = 3  # Newton steps after the bisection; each about doubles the digits


def soft_topk(x: Tensor, k: int | Tensor, *, alpha: float = 1.0, iterations: int = 32, log: bool = False) -> Tensor:
    r"""Map scores to weights between 0 and 1 that sum to k along the last dim.

    $$p_j = \sigma(\alpha (x_j + t)), \qquad t \text{ such that } \sum_j p_j = k$$

    $t$ is found by bisection, which Newton's steps then sharpen; the gradient is that of the exact $t$.

    Args:
        x: scores (..., n) in float32 or float64.
        k: how much the weights sum to, in (0, n); a tensor (...) has one for each row. From n on all weights are 1.
        alpha: $\alpha > 0$, how sharp the weights are.
        iterations: of the bisection.
        log: return the weights' logarithms, which stay exact for small weights.

    Returns:
        Weights or their logarithms, in the shape of `x`.

    Raises:
        ValueError: if k, alpha or iterations is not positive.

    Example:
        >>> import torch
        >>> from manymax.heads.soft_topk import soft_topk
        >>> soft_topk(torch.tensor([3.0, 3.0, 3.0, 3.0]), 2)
        tensor([0.5000, 0.5000, 0.5000, 0.5000])

    Source:
        Gupta et al., 2023, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636, after a note by
        Thomas Ahle.
    """
    if not alpha > 0:
        raise ValueError(f"alpha: expected a number above 0, got {alpha!r}")
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    size = torch.as_tensor(k, dtype=x.dtype, device=x.device).expand(x.shape[:-1])[..., None]
    if not bool((size > 0).all()):
        raise ValueError(f"k: expected numbers above 0, got {float(size.min())}")
    weights: Tensor = _soft_topk(x, size, alpha, iterations, log)
    return weights


def _shifted(x: Tensor, k: Tensor, alpha: float, iterations: int) -> Tensor:
    """Return alpha (x + t), +inf where all weights are 1."""
    count = x.shape[-1]
    x = alpha * x
    # All weights at most k / n bound t from below, and all at least k / n from above.
    even = torch.logit(torch.where(k < count, k / count, 0.5))
    low, high = even - x.amax(-1, keepdim=True), even - x.amin(-1, keepdim=True)
    for _ in range(iterations):
        middle = (low + high) / 2
        short = (x + middle).sigmoid().sum(-1, keepdim=True) < k
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    t = (low + high) / 2
    for _ in range(POLISH):
        p = (x + t).sigmoid()
        slope = (p * (1 - p)).sum(-1, keepdim=True)
        step = (k - p.sum(-1, keepdim=True)) / slope
        better = t + torch.where(slope > 0, step, 0)
        t = torch.where((low <= better) & (better <= high), better, t)
    return torch.where(k < count, x + t, torch.inf)


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: Tensor, alpha: float, iterations: int, log: bool) -> Tensor:
        """Return weights or their logarithms."""
        shifted = _shifted(x, k, alpha, iterations)
        ctx.save_for_backward(shifted)
        ctx.alpha, ctx.log = alpha, log
        return F.logsigmoid(shifted) if log else shifted.sigmoid()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Any, ...]:
        """Return the gradient through the scores and, by the sum's derivative of 0, through t."""
        (shifted,) = ctx.saved_tensors
        slope = ctx.alpha * shifted.sigmoid() * (-shifted).sigmoid()
        own = d * (ctx.alpha * (-shifted).sigmoid() if ctx.log else slope)
        total = slope.sum(-1, keepdim=True)
        shares = torch.where(total > 0, slope / torch.where(total > 0, total, 1), 0)
        return own - own.sum(-1, keepdim=True) * shares, None, None, None, None


_soft_topk: Any = _SoftTopK.apply  # untyped in torch


class SoftTopKHead(CosineHead):
    r"""Cosines over a temperature, and minus the logarithms of the positives' weights in a soft top-k.

    $$L = -\frac{1}{|P|} \sum_{l \in P} \log p_l, \qquad p_j = \sigma(\alpha (s_j + t)), \quad \sum_j p_j = k,
    \quad s_j = \frac{\cos(h, w_j)}{\tau}$$

    with $h$ the features, $w_j$ a label's row or a candidate, $P$ the labels of $h$ and $\tau$ the temperature. It
    falls to nothing once the positives are well among the first $k$, in whatever order.

    Args:
        in_features: length of $h$.
        num_classes: number of labels.
        k: how many labels count as found; None is $|P|$, for each token its own.
        alpha: $\alpha > 0$, how sharp the weights are.
        temperature: $\tau$, above 0.
        iterations: of the bisection that finds $t$.
        weighted: multiply a positive's term by its target.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("soft-topk", in_features=8, num_classes=4, k=2)
        >>> round(head(torch.zeros(1, 8), torch.tensor([3])).item(), 4)  # each label's weight is 2 of 4
        0.6931

    Source:
        Gupta et al., 2023, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636. Where k is fixed
        the authors' code draws k of a token's positives and gives the others a score of -100; here all count, as in
        the formula.
    """

    soft_targets = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        k: int | None = None,
        alpha: float = 2.0,
        temperature: float = 0.05,
        iterations: int = 32,
        weighted: bool = False,
        **common: Unpack[Common],
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)
        if k is not None and k < 1:
            raise ValueError(f"k: expected at least 1 or None, got {k}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha: expected a number above 0, got {alpha!r}")
        if iterations < 1:
            raise ValueError(f"iterations: expected at least 1, got {iterations}")
        self.k, self.alpha, self.iterations, self.weighted = k, alpha, iterations, weighted

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the mean over positives."""
        if not target.is_floating_point():
            k = self.k or 1
            logs = soft_topk(scores, k, alpha=self.alpha, iterations=self.iterations, log=True)
            return -logs.gather(-1, target[:, None])[:, 0]
        positive = target > 0
        count = positive.sum(-1)
        logs = soft_topk(scores, self.k or count.clamp(min=1), alpha=self.alpha, iterations=self.iterations, log=True)
        terms = torch.where(positive, logs * target if self.weighted else logs, 0)
        return -terms.sum(-1) / count.clamp(min=1)
