"""Whether points lie outside the convex hull of others, and how far."""

from __future__ import annotations

import torch
from torch import Tensor

from manymax.maps.sparsemax import sparsemax


def nearest_in_hull(points: Tensor, corners: Tensor, steps: int = 100) -> Tensor:
    """Return the hull's points that are nearest to the given ones, by projected gradients.

    Args:
        points: (..., P, D).
        corners: (..., N, D), whose convex hull is meant.
        steps: of the descent; the projection onto the simplex is sparsemax.

    Returns:
        Points of the hull (..., P, D), each a mean of corners, at a distance that falls with the steps.
    """
    gram = corners @ corners.transpose(-2, -1)
    target = points @ corners.transpose(-2, -1)
    # The gradient's Lipschitz constant is the largest eigenvalue, at most the largest row sum.
    rate = 1 / gram.abs().sum(-1).amax(-1)[..., None, None].clamp(min=torch.finfo(gram.dtype).tiny)
    weights = torch.full_like(target, 1 / corners.shape[-2])
    for _ in range(steps):
        weights = sparsemax(weights - rate * (weights @ gram - target))
    return weights @ corners


def outside_hull(points: Tensor, corners: Tensor, steps: int = 100, slack: float = 1e-9) -> Tensor:
    """Return how far outside the hull each point surely is: the gap of a hyperplane that separates it, else 0.

    The hyperplane stands across the line from the nearest point that was found. If the descent has not ended, the gap
    is too small, never too large, so that no point of the hull is ever said to be outside.

    Args:
        points: (..., P, D).
        corners: (..., N, D).
        steps: of the descent.
        slack: gaps of up to this times the largest coordinate are rounding, and 0.

    Returns:
        Gaps (..., P).
    """
    direction = torch.nn.functional.normalize(points - nearest_in_hull(points, corners, steps), dim=-1)
    reach = (direction @ corners.transpose(-2, -1)).amax(-1)
    gap = (direction * points).sum(-1) - reach
    return torch.where(gap > slack * corners.abs().amax((-2, -1))[..., None], gap, 0)
