"""Label-distributionally robust losses, and how sure of its labels each token's loss is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-6  # of lam0: below it the loss is that of lam = 0, the maximum, up to LEAST * lam0 * log K
GRID, STEPS = 16, 20  # first values of lam that are tried, and steps of Newton's method beside the best


def label_margins(scores: Tensor, target: Tensor, margin: float) -> Tensor:
    """Return f_k - f_y + c_k, (n, K), with c_k = margin but c_y = 0."""
    found = scores - scores.gather(1, target[:, None]) + margin
    return found.scatter(1, target[:, None], 0)


def tempered(margins: Tensor, lam: Tensor) -> Tensor:
    """Return lam log((1 / K) sum_k exp(m_k / lam)) of margins (n, K) and lam (n,)."""
    return lam * ((margins / lam[:, None]).logsumexp(-1) - math.log(margins.shape[1]))


def ldr_kl(scores: Tensor, target: Tensor, *, lam: float = 1.0, margin: float = 0.0) -> Tensor:
    r"""Return the expected margin under the worst of all distributions over labels, far ones at a price.

    $$\psi_\lambda = \max_p \sum_k p_k (f_k - f_y + c_k) - \lambda \operatorname{KL}(p \,\Vert\, 1/K)
    = \lambda \log \frac{1}{K} \sum_k e^{(f_k - f_y + c_k) / \lambda}$$

    with $f$ the scores, $y$ the target, $c_k$ the margin for $k \ne y$ and $c_y = 0$. At $\lambda = 1$ without margin
    it is cross-entropy less $\log K$; it tends to Crammer and Singer's hinge as $\lambda \to 0$, and to the mean of the
    margins, which is the same for all labels together whatever the scores, as $\lambda \to \infty$.

    Args:
        scores: $f$, (n, K).
        target: $y$, int64 (n,).
        lam: $\lambda > 0$.
        margin: $c_k$.

    Returns:
        Losses (n,).

    Source:
        Zhu, Ying and Yang, 2023, Label Distributionally Robust Losses for Multi-class Classification: Consistency,
        Robustness and Adaptivity, arXiv:2112.14869.
    """
    return tempered(label_margins(scores, target, margin), scores.new_full((len(scores),), lam))


def aldr_kl(
    scores: Tensor,
    target: Tensor,
    *,
    lam0: float = 1.0,
    alpha: float | None = None,
    margin: float = 0.0,
    lam: Tensor | None = None,
) -> Tensor:
    r"""Return the loss of `ldr_kl` with a $\lambda$ for each token that grows with how unsure its label is.

    $$\max_{\lambda \ge 0} \psi_\lambda - \frac{\alpha}{2} (\lambda - \lambda_0)^2, \qquad
    \lambda = \Big[\lambda_0 - \frac{1}{\alpha} \operatorname{KL}(p_\lambda \,\Vert\, 1/K)\Big]_+ \text{ there}$$

    with $p_\lambda$ the softmax of the margins over $\lambda$. The gradient holds $\lambda$, as at a maximum it may.

    Args:
        scores: $f$, (n, K).
        target: $y$, int64 (n,).
        lam0: $\lambda_0 > 0$, of a token whose scores say nothing.
        alpha: $\alpha$, the price of leaving it; None is $2 \log K / \lambda_0$, as in the authors' code.
        margin: $c_k$ for $k \ne y$.
        lam: $\lambda$ of each token, (n,), in the place of the maximum's.

    Returns:
        Losses (n,).

    Source:
        Zhu, Ying and Yang, 2023, arXiv:2112.14869.
    """
    margins = label_margins(scores, target, margin)
    alpha = price(scores.shape[1], lam0) if alpha is None else alpha
    if lam is None:
        lam = best_lambda(margins.detach(), lam0, alpha)
    return tempered(margins, lam) - alpha / 2 * (lam - lam0).square()


def price(classes: int, lam0: float) -> float:
    """Return the alpha of the authors' code, with which no lambda falls below half of lam0."""
    return 2 * math.log(max(classes, 2)) / lam0


class _Bend(NamedTuple):
    """The value of what is maximised, and its two derivatives."""

    value: Tensor
    slope: Tensor
    curve: Tensor


def _bend(margins: Tensor, lam: Tensor, lam0: float, alpha: float) -> _Bend:
    """Return the objective at lam (n,) for margins (n, K) of at most 0."""
    tempered = margins / lam[:, None]
    log_sum = tempered.logsumexp(-1)
    weights = (tempered - log_sum[:, None]).exp()
    mean = (weights * tempered).sum(-1)
    away = mean - log_sum + math.log(margins.shape[1])  # KL(p || 1/K)
    spread = (weights * (tempered - mean[:, None]).square()).sum(-1)
    value = lam * (log_sum - math.log(margins.shape[1])) - alpha / 2 * (lam - lam0).square()
    return _Bend(value, -away - alpha * (lam - lam0), spread / lam - alpha)


def best_lambda(margins: Tensor, lam0: float, alpha: float) -> Tensor:
    """Return the lambda of each token at which the adaptive loss has its maximum, (n,), for margins (n, K).

    The objective is a convex function less a parabola and may have two maxima. So the best of a few values comes first,
    then Newton's method between its neighbours, with a bisection wherever a step would leave them.
    """
    margins = margins - margins.amax(-1, keepdim=True)
    grid = torch.linspace(LEAST * lam0, lam0, GRID, dtype=margins.dtype, device=margins.device)
    rows = margins.shape[:1]
    values = torch.stack([_bend(margins, one.expand(rows), lam0, alpha).value for one in grid])
    best = values.argmax(0)
    low, high = grid[(best - 1).clamp_min(0)], grid[(best + 1).clamp_max(GRID - 1)]
    lam = grid[best]
    for _ in range(STEPS):
        at = _bend(margins, lam, lam0, alpha)
        up = at.slope > 0
        low, high = torch.where(up, lam, low), torch.where(up, high, lam)
        step = lam - at.slope / torch.where(at.curve < 0, at.curve, -1)
        inside = (at.curve < 0) & (step >= low) & (step <= high)
        lam = torch.where(inside, step, (low + high) / 2)
    return lam


def next_lambda(scores: Tensor, lam: Tensor, *, lam0: float, alpha: float) -> Tensor:
    """Return one step of the authors' code from the lambda that a token had: [lam0 - KL(softmax(f / lam)) / alpha]_+.

    It takes neither the target nor the margin into account. Their code adds 1e-5 to the softmax; this does not.
    """
    logs = F.log_softmax(scores / lam[:, None], dim=-1)
    away = (logs.exp() * logs).sum(-1) + math.log(scores.shape[1])
    return (lam0 - away / alpha).clamp_min(LEAST * lam0)
