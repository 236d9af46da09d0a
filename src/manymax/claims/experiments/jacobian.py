"""The largest spectral norm of a function's Jacobian in a ball, searched for by gradient ascent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev, vmap


def worst_spectral_norm(function: Callable[[Tensor], Tensor], x: Tensor, radius: float, steps: int) -> float:
    """Return the largest spectral norm of a function's Jacobian that gradient ascent finds.

    Args:
        function: of tokens (N, D) to tokens (N, D).
        x: starts (S, N, D).
        radius: of the ball that each token stays in.
        steps: of Adam, whose steps are a 20th of the radius.
    """
    points = inside(x, radius).requires_grad_()
    ascent = torch.optim.Adam([points], lr=radius / 20, maximize=True)
    largest = 0.0
    size = x.shape[-2] * x.shape[-1]
    for _ in range(steps + 1):
        norms = torch.linalg.matrix_norm(vmap(jacrev(function))(points).reshape(-1, size, size), ord=2)
        largest = max(largest, float(norms.detach().max()))
        ascent.zero_grad()
        norms.sum().backward()
        ascent.step()
        with torch.no_grad():
            points.copy_(inside(points, radius))
    return largest


def inside(x: Tensor, radius: float) -> Tensor:
    """Return the tokens (..., D), those outside the ball moved to its surface."""
    x = x.detach()
    shrink: Tensor = (radius / torch.linalg.vector_norm(x, dim=-1, keepdim=True)).clamp(max=1)
    return x * shrink
