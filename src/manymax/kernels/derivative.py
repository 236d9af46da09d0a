"""Derivatives of the kernels that go backwards from their weights, in plain PyTorch: they have derivatives themselves.

So a second derivative, or one of many gradients at once, needs no scores: these maps keep one tensor, as
torch.softmax does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def from_weights(name: str, out: Tensor, grad: Tensor, dim: int, options: list[float]) -> Tensor:
    """Return the gradient of the scores, given the kernel's result, its gradient, and the options that it was given."""
    temperature = options[0]
    dtype = torch.float64 if out.dtype == torch.float64 else torch.float32
    w, g = out.to(dtype), grad.to(dtype)
    if name == "log_softmax":
        g = torch.where(w == -torch.inf, 0, g)
        return ((g - torch.exp(w) * g.sum(dim, keepdim=True)) / temperature).to(out.dtype)
    slope = _slope(name, w, options)
    g = slope * torch.where(slope == 0, 0, g)
    mean = g.sum(dim, keepdim=True)
    if name in {"entmax", "entmax15", "sparsemax"}:
        total = slope.sum(dim, keepdim=True)
        mean = mean / torch.where(total == 0, 1, total)
    return ((g - slope * mean) / temperature).to(out.dtype)


def _slope(name: str, w: Tensor, options: list[float]) -> Tensor:
    """Return dw/dx at a constant cut or denominator: w^(2 - alpha) on the support of entmax and its kin, else w."""
    if name == "sparsemax":
        return torch.where(w == 0, 0, 0 * w + 1)  # constant, yet a part of the graph, and NaN where w is
    if name == "entmax":
        return torch.where(w == 0, 0, torch.where(w == 0, 1, w) ** (2 - options[1]))
    if name == "entmax15":
        return torch.where(w == 0, 0, torch.sqrt(torch.where(w == 0, 1, w)))
    return w
