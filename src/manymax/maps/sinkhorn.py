"""Sinkhorn: rows and columns normalised in turn, towards a doubly stochastic matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manymax.maps.coupled import Coupled
from manymax.maps.rule import apply, check_count, check_option, hide, keep, known_true


def _log_sums(logs: Tensor, visible: Tensor | None, dim: int) -> Tensor:
    """Return the log-sum-exp of what is visible along dim, 0 where nothing is."""
    sums = torch.logsumexp(hide(logs, visible, dim), dim, keepdim=True)
    return sums if visible is None else keep(sums, visible.any(dim, keepdim=True), 0)


def _log_share(logs: Tensor, visible: Tensor | None) -> Tensor:
    """Return the logarithm of rows over columns (..., 1, 1), counting those that show something.

    Columns sum to this share when rows sum to 1; without it potentials would drift for ever.
    """
    if visible is None:
        return torch.full_like(logs[..., :1, :1], math.log(logs.shape[-2] / logs.shape[-1]))
    rows, columns = (visible.any(dim).sum(-1).clamp(min=1).to(logs.dtype)[..., None, None] for dim in (-1, -2))
    return torch.log(rows / columns)


@dataclass(frozen=True)
class Sinkhorn(Coupled):
    """exp(x / eps), its rows and columns normalised in turn, rows first and last, in the log domain."""

    iterations: int = 3
    eps: float | Tensor = 1.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a number of iterations that ends with columns, and options out of range."""
        super().__post_init__()
        check_count("iterations", self.iterations, lambda count: count > 0 and count % 2 == 1, "an odd number above 0")
        check_option("eps", self.eps, lambda eps: eps > 0, "a number above 0")
        check_option("tolerance", self.tolerance, lambda tolerance: tolerance >= 0, "a number of at least 0")

    @property
    def sums_to_one(self) -> bool:
        """Return True: rows come last."""
        return True

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Couple the last two dims; one dim alone is a matrix of one row."""
        if scores.dim() == 1:
            shown = None if visible is None else visible.unsqueeze(0)
            return self._balanced(scores.unsqueeze(0), shown).squeeze(0)
        return self._balanced(scores, visible)

    def _balanced(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return weights (..., rows, columns).

        Columns are divided by exp(potential). Rows are not: what they would be divided by follows from the columns.
        """
        logs = scores / self.eps
        share = _log_share(logs, visible)
        potential = torch.zeros_like(logs[..., :1, :])
        done = torch.zeros_like(logs[..., :1, :1], dtype=torch.bool)
        for _ in range(self.iterations // 2):
            rows = _log_sums(logs - potential, visible, -1)
            columns = _log_sums(logs - rows, visible, -2) - share
            potential, before = torch.where(done, potential, columns), potential
            if self.tolerance > 0:
                change = (potential - before).detach().abs().amax((-2, -1), keepdim=True)
                done = done | (change <= self.tolerance)
                if known_true(done.all()):
                    break
        return torch.softmax(hide(logs - potential, visible), -1)


def sinkhorn(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    iterations: int = 3,
    eps: float | Tensor = 1.0,
    tolerance: float = 0.0,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Normalise rows and columns in turn, so that no column gets more than its share.

    $$K_0 = e^{x / (\varepsilon T)}, \qquad K_l = \begin{cases}
    \operatorname{diag}(K_{l-1} 1)^{-1} K_{l-1} & l \text{ odd} \\
    \frac{m}{n} K_{l-1} \operatorname{diag}(1^\top K_{l-1})^{-1} & l \text{ even}
    \end{cases} \qquad w = K_L$$

    with $T$ the temperature, $\varepsilon$ the strength of the entropy, $L$ the odd number of iterations, and $m$ rows
    and $n$ columns that show something. Rows run along `dim`; columns run along the dim before it, once `dim` is moved
    last, and each matrix of the two is balanced on its own. With $L = 1$ this is softmax. As $L$ grows the weights tend
    to the plan of entropic optimal transport between uniform marginals, times $m$: rows sum to 1, columns to $m / n$.

    Masked entries weigh 0 in rows and columns alike; a row or column of which nothing is visible takes no part. The
    gradient is that of the iterations. A tensor of one dim is a matrix of one row, which balances to equal weights.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which rows run.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        iterations: $L$, odd.
        eps: $\varepsilon > 0$; a tensor broadcasts to `x`.
        tolerance: a matrix is left as it is once no column's logarithm changed by more than this in an iteration; 0 is
            never.
        temperature: $T > 0$; a tensor broadcasts to `x`. It does the same as `eps`.

    Returns:
        Weights of x's shape and dtype; a row sums to 1.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, iterations is not odd and
            positive, eps <= 0, tolerance < 0, or temperature <= 0.

    Example:
        >>> import torch, manymax as mm
        >>> x = torch.tensor([[2.0, 0.0], [2.0, 1.0]])
        >>> torch.stack([mm.softmax(x).sum(0), mm.sinkhorn(x, iterations=31).sum(0)])
        tensor([[1.6119, 0.3881],
                [1.0000, 1.0000]])

    Source:
        Sander et al., 2021, Sinkformers: Transformers with Doubly Stochastic Attention, arXiv:2110.11773.
    """
    return apply(Sinkhorn(temperature, iterations, eps, tolerance), x, dim, mask)
