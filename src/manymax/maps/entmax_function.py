"""Sparsemax and entmax as one differentiable function that keeps nothing but its weights.

With l = log w and s_i = w_i^(2 - alpha) on the support, 0 elsewhere (Peters et al., 2019; Correia et al., 2019):

    dw_i / dx_j   = s_i (delta_ij - s_j / sum s)
    dw_i / dalpha = w_i / sum s * (M (1 - a l_i) - q_i (1 - a E)),   a = alpha - 1,
    q_i = l_i^2 h(-a l_i),   h(t) = (e^t - 1 - t) / t^2,   M = sum w q,   E = sum w l.

The second line is the published gradient with the differences that cancel near alpha = 1 taken out: there it tends to
w_i (sum w l^2 - l_i^2) / 2 without a division by a.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from manymax.maps.entmax_solver import solve_entmax, solve_entmax15, solve_sparsemax

SMALL = 0.1  # below it h is a series of TERMS terms, exact in float64; above, the difference loses a digit
TERMS = 10


def _h(t: Tensor) -> Tensor:
    """Return (e^t - 1 - t) / t^2."""
    small = t.abs() < SMALL
    near, far = torch.where(small, t, 0), torch.where(small, 1, t)
    series = torch.zeros_like(t)
    for k in range(TERMS + 1, 1, -1):
        series = series * near + 1 / math.factorial(k)
    return torch.where(small, series, (torch.expm1(far) - far) / far.square())


def _grad_excess(grad: Tensor, weights: Tensor, logs: Tensor, slopes: Tensor, excess: Tensor) -> Tensor:
    """Return the gradient of alpha, (..., 1)."""
    q = logs.square() * _h(-excess * logs)
    mean_q, mean_log = ((weights * part).sum(-1, keepdim=True) for part in (q, logs))
    change = weights * (mean_q * (1 - excess * logs) - q * (1 - excess * mean_log))
    return (grad * change).sum(-1, keepdim=True) / slopes.sum(-1, keepdim=True)


class _Entmax(torch.autograd.Function):
    """The arguments are those of `entmax_weights`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, excess: float | Tensor) -> Tensor:
        """Solve exactly where there is a closed form, by root finding otherwise."""
        if isinstance(excess, Tensor):
            one = excess == 0  # alpha = 1 is softmax
            weights = solve_entmax(scores, torch.where(one, 1, excess))
            return torch.where(one, torch.softmax(scores, -1), weights)
        if excess == 1:
            return solve_sparsemax(scores)
        return solve_entmax15(scores) if excess == 0.5 else solve_entmax(scores, excess)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | Tensor], output: Tensor) -> None:
        """Keep the weights, and the excess."""
        excess = inputs[1]
        learnt = isinstance(excess, Tensor)
        ctx.excess = None if learnt else excess
        ctx.save_for_backward(output, excess if learnt else None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply the closed form; it is made of differentiable operations, so that it can be differentiated again."""
        (grad,) = grads
        weights, excess = ctx.saved_tensors
        excess = ctx.excess if excess is None else excess
        support = weights > 0
        positive = torch.where(support, weights, 1)
        slopes = torch.where(support, positive ** (1 - excess), 0)
        mean = (grad * slopes).sum(-1, keepdim=True) / slopes.sum(-1, keepdim=True)
        grad_excess = None
        if ctx.needs_input_grad[1]:
            grad_excess = _grad_excess(grad, weights, positive.log(), slopes, excess)
        return slopes * (grad - mean), grad_excess


def entmax_weights(scores: Tensor, excess: float | Tensor) -> Tensor:
    """Return the weights for alpha = 1 + excess, with gradients.

    Args:
        scores: (..., n), float32 or float64, -inf where hidden, with at least one in a row that is not.
        excess: a number above 0, or a tensor (..., 1) of at least 0, where 0 is softmax.
    """
    weights: Tensor = _Entmax.apply(scores, excess)  # type: ignore[no-untyped-call]
    return weights
