"""Comp-sum losses that hold in a neighbourhood of the input, and the search for the worst point there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from manymax.heads.comp_sum import comp_sum_loss


def pgd(
    objective: Callable[[Tensor], Tensor],
    input: Tensor,
    *,
    radius: float,
    steps: int = 10,
    step_size: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    r"""Climb an objective by projected gradients inside $\lVert x' - x \rVert_\infty \le$ radius.

    Args:
        objective: inputs like `input` to one number for each, (B,).
        input: $x$, (B, ...).
        radius: of the ball.
        steps: of the climb, each by the sign of the gradient, from a random point of the ball (torch's global
            generator).
        step_size: of a coordinate; None is 2.5 radius / steps.
        bounds: the least and the largest value that an input may have; None is any.

    Returns:
        $x'$, like `input`, without a gradient.

    Raises:
        ValueError: if the radius is negative or there is no step.

    Example:
        >>> import torch
        >>> from manymax.heads.adversarial import pgd
        >>> pgd(lambda x: x.sum(1), torch.zeros(1, 2), radius=0.5)
        tensor([[0.5000, 0.5000]])

    Source:
        Madry et al., 2017, Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv:1706.06083.
    """
    if not radius >= 0 or steps < 1:
        raise ValueError(f"radius, steps: expected at least 0 and 1, got {radius} and {steps}")
    center = input.detach()
    step_size = 2.5 * radius / steps if step_size is None else step_size

    def inside(x: Tensor) -> Tensor:
        x = torch.minimum(torch.maximum(x, center - radius), center + radius)
        return x if bounds is None else x.clamp(*bounds)

    found = inside(center + radius * (2 * torch.rand_like(center) - 1))
    for _ in range(steps):
        found.requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(objective(found).sum(), found)
        found = inside(found.detach() + step_size * slope.sign())
    return found


def smooth_adversarial_comp_sum(
    model: Callable[[Tensor], Tensor],
    input: Tensor,
    target: Tensor,
    *,
    radius: float,
    tau: float = 1.0,
    rho: float = 1.0,
    nu: float = 1.0,
    steps: int = 10,
    step_size: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    r"""Return a comp-sum loss, and how far the target's leads can move in a neighbourhood of the input.

    $$\Phi_\tau\Big(\sum_{j \ne y} e^{-\Delta_j(x) / \rho}\Big) + \nu \max_{\lVert x' - x \rVert_\infty \le \gamma}
    \lVert \Delta(x') - \Delta(x) \rVert_2, \qquad \Delta_j(x) = z_y(x) - z_j(x)$$

    with $z$ the scores of the model, $y$ the target and $\Phi_\tau$ that of `comp_sum_loss`. The maximum is sought by
    `pgd`.

    Args:
        model: inputs (B, ...) to scores (B, C).
        input: $x$, (B, ...).
        target: $y$, int64 (B,).
        radius: $\gamma$.
        tau: $\tau \ge 0$.
        rho: $\rho > 0$, the lead that counts as one.
        nu: $\nu \ge 0$, the price of moving.
        steps: of the search.
        step_size: of the search; None is 2.5 radius / steps.
        bounds: the least and the largest value that an input may have; None is any.

    Returns:
        Losses (B,).

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> import torch
        >>> from manymax.heads.adversarial import smooth_adversarial_comp_sum
        >>> x, y = torch.zeros(1, 2), torch.tensor([0])
        >>> smooth_adversarial_comp_sum(lambda x: x, x, y, radius=0.5).item()  # log 2, and a lead can fall by 1
        1.6931471824645996

    Source:
        Mao, Mohri and Zhong, 2023, Cross-Entropy Loss Functions: Theoretical Analysis and Applications,
        arXiv:2304.07288. The text was not at hand: that $\rho$ divides the leads inside of the exponential, and that
        $\nu$ has no published default, is recollection.
    """
    if not rho > 0 or not nu >= 0 or not tau >= 0:
        raise ValueError(f"rho, nu, tau: expected above 0, at least 0 and at least 0, got {rho}, {nu} and {tau}")
    scores = model(input)
    still = leads(scores.detach(), target)
    worst = pgd(
        lambda x: moved(leads(model(x), target), still),
        input,
        radius=radius,
        steps=steps,
        step_size=step_size,
        bounds=bounds,
    )
    return comp_sum_loss(scores / rho, target, tau) + nu * moved(leads(model(worst), target), leads(scores, target))


def leads(scores: Tensor, target: Tensor) -> Tensor:
    """Return the target's score less each score, (n, C); the target's own is 0."""
    return scores.gather(1, target[:, None]) - scores


def moved(leads: Tensor, others: Tensor) -> Tensor:
    """Return the length of the difference of rows (n, C), (n,)."""
    length: Tensor = torch.linalg.vector_norm(leads - others, dim=-1)
    return length
