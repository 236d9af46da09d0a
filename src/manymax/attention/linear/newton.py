"""Inverses of symmetric matrices by Newton's iteration: products of matrices alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def newton_inverse(matrix: Tensor, size: Tensor, iterations: int) -> Tensor:
    """Return the inverse of symmetric matrices (..., m, m) by Newton's iteration from `size` (...) times themselves.

    It converges if the size is below 2 over the largest eigenvalue squared. A row of zeros stays one of zeros.
    """
    found: Tensor = _NewtonInverse.apply(matrix, size, iterations)  # type: ignore[no-untyped-call]
    return found


def largest_sum(matrix: Tensor) -> Tensor:
    """Return the largest row's sum (...) of kernels (..., m, m): at least 1, the diagonal's, but where nothing is."""
    return matrix.sum(-1).amax(-1).clamp(min=1)


def safe_size(matrix: Tensor) -> Tensor:
    """Return a step size (...) for `newton_inverse`, halved up to 10 times until the first residual is small enough."""
    size = 2 / largest_sum(matrix) ** 2
    square = matrix @ matrix
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(10):
        residual = (identity - size[..., None, None] * square).abs().sum(-2).amax(-1)
        size = torch.where(residual > 1.01, size / 2, size)
    return size


class _NewtonInverse(torch.autograd.Function):
    """Newton's iteration forward, the derivative of an inverse backward: -X^T G X^T."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, size: Tensor, iterations: int) -> Tensor:
        inverse = size[..., None, None] * matrix
        for _ in range(iterations):
            inverse = 2 * inverse - inverse @ matrix @ inverse
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        transposed = inverse.transpose(-2, -1)
        return -transposed @ grads[0] @ transposed, None, None
