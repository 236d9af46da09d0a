"""Forward passes of sparsemax and entmax: where the cut lies, found without gradient.

All take scores (..., n), -inf where hidden and with at least one that is not, and return weights

    w_i = max((alpha - 1) x_i - tau, 0) ^ (1 / (alpha - 1)),   tau such that they sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manymax.maps.rule import known_true

NEWTON_STEPS = 12  # for alpha <= 2: rows of 20,000 scores of every spread tried are at rounding after 11
BISECTIONS = {torch.float32: 26, torch.float64: 56}  # until the bracket, at most log n wide, is within rounding


def _polish(weights: Tensor, slopes: Tensor) -> Tensor:
    """Return the weights after one Newton step in tau, taken on the weights.

    Tau is near 1 in size, so that its own rounding, 6e-8 in float32, moves each of n weights by as much; the step does
    not round tau again.
    """
    excess = weights.sum(-1, keepdim=True) - 1
    return (weights - slopes * (excess / slopes.sum(-1, keepdim=True))).clamp(min=0)


def _sorted_prefixes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores in descending order, no lower than 1 below the first, where no weight is left; and 1, 2, ..., n."""
    ordered = x.sort(-1, descending=True).values.clamp(min=-1)
    return ordered, torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)


def solve_sparsemax(scores: Tensor) -> Tensor:
    """Return sparsemax exactly: the largest k such that the k-th score is above the cut of the first k."""
    x = scores - scores.amax(-1, keepdim=True)
    ordered, counts = _sorted_prefixes(x)
    tau = (ordered.cumsum(-1) - 1) / counts
    support = (ordered > tau).sum(-1, keepdim=True).clamp(min=1)
    weights = (x - tau.gather(-1, support - 1)).clamp(min=0)
    return _polish(weights, (weights > 0).to(x.dtype))


def solve_entmax15(scores: Tensor) -> Tensor:
    """Return 1.5-entmax exactly: as for sparsemax, with the cut of k scores from their mean and variance."""
    x = (scores - scores.amax(-1, keepdim=True)) / 2
    ordered, counts = _sorted_prefixes(x)
    mean = ordered.cumsum(-1) / counts
    variance = ordered.square().cumsum(-1) / counts - mean.square()
    tau = mean - (1 / counts - variance).clamp(min=0).sqrt()
    support = (ordered >= tau).sum(-1, keepdim=True).clamp(min=1)
    tau = tau.gather(-1, support - 1)
    roots = (x - tau).clamp(min=0)
    # A variance as the difference of two means is off by 6e-8 in float32, much beside 1 / k for large k: correct tau.
    tau = tau + (roots.square().sum(-1, keepdim=True) - 1) / (2 * roots.sum(-1, keepdim=True))
    roots = (x - tau).clamp(min=0)
    return _polish(roots.square(), roots)


def _weights_at(x: Tensor, level: Tensor, excess: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return (1 + (alpha - 1) (x - level))^(1 / (alpha - 1)) and its derivative in -level, both 0 below the cut."""
    above = ((x - level) * excess).clamp(min=-1)
    weights = torch.exp(torch.log1p(above) / excess)
    return weights, weights / (1 + above).clamp(min=torch.finfo(x.dtype).tiny)


def _between(x: Tensor, low: Tensor, high: Tensor, excess: float | Tensor) -> Tensor:
    """Return the mix of the weights at both ends of a bracket that sums to 1: it only moves what still differs."""
    most, _ = _weights_at(x, low, excess)
    least, _ = _weights_at(x, high, excess)
    spread = most.sum(-1, keepdim=True) - least.sum(-1, keepdim=True)
    share = (1 - least.sum(-1, keepdim=True)) / torch.where(spread == 0, 1, spread)
    return least + (most - least) * share.clamp(0, 1)


def solve_entmax(scores: Tensor, excess: float | Tensor) -> Tensor:
    """Return entmax for any excess = alpha - 1 > 0, by root finding in a bracket.

    The unknown is level = (tau + 1) / (alpha - 1), which tends to the log-sum-exp as alpha tends to 1. It lies in
    [0, (1 - n^(1 - alpha)) / (alpha - 1)] above the largest score. For alpha <= 2, the weights' sum to the power of
    alpha - 1 is the norm of order 1 / (alpha - 1) of something linear: convex, nearly straight, and Newton's method
    from the left never overshoots. For alpha > 2 it is not convex, with vertical slopes, and the bracket is halved.
    """
    x = scores - scores.amax(-1, keepdim=True)
    dense = torch.as_tensor(excess, dtype=x.dtype, device=x.device)
    convex = known_true((dense <= 1).all()) if isinstance(excess, Tensor) else excess <= 1
    steps = NEWTON_STEPS if convex else BISECTIONS[x.dtype]
    low = torch.zeros_like(x[..., :1])
    high = -torch.expm1(-dense * torch.log(torch.full_like(low, x.shape[-1]))) / dense
    high = high * (1 + 4 * torch.finfo(x.dtype).eps)  # equal scores have their cut at the bound, which is rounded
    level = low
    for _ in range(steps):
        weights, slopes = _weights_at(x, level, excess)
        total = weights.sum(-1, keepdim=True)
        low = torch.where(total >= 1, level, low)
        high = torch.where(total <= 1, level, high)
        newton = level - total * torch.expm1(-dense * total.log()) / dense / slopes.sum(-1, keepdim=True)
        middle = (low + high) / 2
        level = torch.where((dense <= 1) & (newton >= low) & (newton <= high), newton, middle)
    polished = _polish(*_weights_at(x, level, excess))
    return polished if convex else torch.where(dense <= 1, polished, _between(x, low, high, excess))
