"""Gradients made orthogonal to the weights, around any optimiser."""

from __future__ import annotations

import torch
from torch import Tensor


class OrthoGrad:
    r"""An optimiser whose gradients lose their part along the weights and keep their length.

    $$g_\perp = g - \frac{w \cdot g}{w \cdot w}\, w, \qquad
    g \leftarrow g_\perp \frac{\lVert g \rVert}{\lVert g_\perp \rVert}$$

    for each parameter tensor $w$ with gradient $g$, before the optimiser's own step.

    Args:
        optimizer: what takes the step.

    Source:
        Prieto et al., 2025, Grokking at the Edge of Numerical Stability, arXiv:2501.04697.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Turn the gradients, then step."""
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.copy_(orthogonal(weight.grad, weight))
        self.optimizer.step()


def orthogonal(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient without its part along the weight, as long as before; both are one vector each."""
    along = (weight * gradient).sum() / ((weight * weight).sum() + 1e-30)
    rest: Tensor = gradient - along * weight
    stretch: Tensor = torch.linalg.vector_norm(gradient) / (torch.linalg.vector_norm(rest) + 1e-30)
    return rest * stretch
