"""Local linear regression at each query: the weighted sums, and a solver that never forms a matrix a query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from manymax._names import closest
from manymax.attention.dense.last import last

SOLVERS = ("cg", "exact")
ROUNDINGS = 100  # of the sum of w |z|^2 that a ridge is at least: with less, a row of one large weight is 0 / 0
SECOND = "local linear attention by conjugate gradients gives no second derivatives; solver='exact' does"
LARGEST = 40.0  # of an exponent: a ridge of 2e17 is as good as endless, and its products stay within float32


def local_linear(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    *,
    scale: Tensor | float,
    ridge: Tensor,
    solver: str = "cg",
    iterations: int | None = None,
    block_size: int = 128,
) -> Tensor:
    """Return the intercepts at the queries of weighted linear fits to the keys, (B, H, Nq, Dv), in the query's dtype.

    Args:
        query: (B, H, Nq, D), floating of at least 32 bits.
        key: (B, H, Nk, D), as many heads as queries.
        value: (B, H, Nk, Dv).
        seen: (B or 1, 1, Nq or 1, Nk), which keys weigh at all.
        scale: factor of the scores, a number or (H, 1, 1).
        ridge: (H, 1, 1), positive: added to the diagonal beside weights exp(score), unnormalised.
        solver: "cg" or "exact".
        iterations: of "cg" at most; None is four times D.
        block_size: queries whose weights exist at once. It changes no result.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver: expected one of {', '.join(SOLVERS)}, got {solver!r}{closest(solver, SOLVERS)}")
    most = 4 * query.shape[3] if iterations is None else iterations
    outs = []
    for start in range(0, query.shape[2], block_size):
        here = slice(start, start + block_size)
        part = seen if seen.shape[2] == 1 else seen[:, :, here]
        arguments: tuple[Any, ...] = (query[:, :, here], key, value, part, scale, ridge, solver, most)
        if torch.is_grad_enabled() and query.shape[2] > block_size:
            outs.append(checkpoint(_block, *arguments, use_reentrant=False))  # weights are formed anew backward
        else:
            outs.append(_block(*arguments))
    return torch.cat(outs, 2) if outs else query.new_zeros(*query.shape[:3], value.shape[3])


def _block(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    scale: Tensor | float,
    ridge: Tensor,
    solver: str,
    iterations: int,
) -> Tensor:
    score = torch.where(seen, (query * scale) @ key.transpose(2, 3), -torch.inf)
    largest = score.detach().amax(3, keepdim=True) if key.shape[2] else query[..., :1].detach()
    largest = torch.where(largest.isfinite(), largest, 0)
    weight = (score - largest).exp()
    total = weight.sum(3, keepdim=True)
    keys = weight @ key
    ridge = held_ridge(ridge, largest, query, total, keys, weight @ key.square().sum(3, keepdim=True))
    mean = keys - total * query  # sum of w z with z = k - q
    slope = _solve(query, key, weight, ridge, mean, solver, iterations)
    along = slope @ key.transpose(2, 3) - (slope * query).sum(3, keepdim=True)  # z · slope
    numerator = (weight * (1 - along)) @ value
    denominator = total - (mean * slope).sum(3, keepdim=True)
    seen_any = total > 0
    return torch.where(seen_any, numerator / torch.where(seen_any, denominator, 1), 0)


def rescaled(ridge: Tensor, shift: Tensor) -> Tensor:
    """Return a ridge beside weights exp(score) as it is beside weights exp(score - shift)."""
    return ridge * (-shift).clamp(max=LARGEST).exp()


def held_ridge(ridge: Tensor, shift: Tensor, query: Tensor, total: Tensor, keys: Tensor, squares: Tensor) -> Tensor:
    """Return the ridge beside weights w = exp(score - shift), at least some roundings of the sum of w |z|^2.

    Args:
        ridge: beside weights exp(score).
        shift: what is subtracted from scores, (B, H, Nq, 1).
        query: (B, H, Nq, D).
        total: sum of w.
        keys: sum of w k.
        squares: sum of w |k|^2.
    """
    with torch.no_grad():
        apart = squares - 2 * (keys * query).sum(3, keepdim=True) + total * query.square().sum(3, keepdim=True)
        least = ROUNDINGS * torch.finfo(query.dtype).eps * apart
    return torch.maximum(rescaled(ridge, shift), least)


def _solve(
    query: Tensor, key: Tensor, weight: Tensor, ridge: Tensor, mean: Tensor, solver: str, iterations: int
) -> Tensor:
    """Return (sum of w z z' + ridge I)^-1 mean for each query."""
    if solver == "exact":
        apart = key[:, :, None] - query[:, :, :, None]
        system = torch.einsum("bhijd,bhije->bhide", weight[..., None] * apart, apart)
        system = system + ridge[..., None] * torch.eye(query.shape[3], dtype=query.dtype, device=query.device)
        exact: Tensor = torch.linalg.solve(system, mean[..., None])[..., 0]
        return exact

    def apply(x: Tensor) -> Tensor:
        """Return the system's product with x, from sums over keys alone."""
        along = weight * (x @ key.transpose(2, 3) - (x * query).sum(3, keepdim=True))
        return along @ key - along.sum(3, keepdim=True) * query + ridge * x

    with torch.no_grad():
        slope = conjugate_gradient(apply, mean.detach(), iterations)
    residual = mean - apply(slope)  # as good as zero; its derivative is what the slope's is made of
    solved: Tensor = _Adjoint.apply(residual, slope, apply, iterations)  # type: ignore[no-untyped-call]
    return solved


class _Adjoint(torch.autograd.Function):
    """The solution x of A x = b as a function of the residual b - A x: its derivative is A^-1, and A is symmetric."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, solution: Tensor, apply: Callable[[Tensor], Tensor], most: int) -> Tensor:
        ctx.save_for_backward(residual)  # it depends on all that the system does
        ctx.apply_system, ctx.most = apply, most
        return solution.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = conjugate_gradient(ctx.apply_system, grad, ctx.most)
        return *last((found,), SECOND, grad, *ctx.saved_tensors), None, None, None


def conjugate_gradient(apply: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """Solve a symmetric positive definite system for each row of the right side (..., D).

    It stops when every residual is below 10 roundings of its right side, or after `iterations`.
    """
    solution, residual, direction = torch.zeros_like(right), right, right
    size = residual.square().sum(-1, keepdim=True)
    enough = (10 * torch.finfo(right.dtype).eps) ** 2 * size
    for _ in range(iterations):
        if not bool((size > enough).any()):
            break
        product = apply(direction)
        curvature = (direction * product).sum(-1, keepdim=True)
        going = (size > enough) & (curvature > 0)
        step = torch.where(going, size / torch.where(going, curvature, 1), 0)
        solution, residual = solution + step * direction, residual - step * product
        before, size = size, residual.square().sum(-1, keepdim=True)
        direction = residual + size / torch.where(before > 0, before, 1) * direction
    return solution
