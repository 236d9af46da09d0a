"""The head of label-distributionally robust losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import chunks, wide
from manymax.heads.head import Common, Head
from manymax.heads.ldr import aldr_kl, ldr_kl, next_lambda, price

if TYPE_CHECKING:
    from typing_extensions import Unpack

Normalize = Literal["l1", "softplus"]


class LDRHead(Head):
    r"""Linear classes and a loss under the worst distribution over labels, more gently where a label is unsure.

    $$L = \max_{\lambda \ge 0} \lambda \log \frac{1}{K} \sum_k e^{(f_k - f_y + c_k) / \lambda}
    - \frac{\alpha}{2} (\lambda - \lambda_0)^2, \qquad f = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $f$ one score for each of $K$ classes, $y$ the
    target, $c_k$ a margin for $k \ne y$ and $c_y = 0$ (ALDR-KL). Not adaptive, it is the first part at
    $\lambda = \lambda_0$ (LDR-KL), at 1 without margin cross-entropy less $\log K$. A loss may be negative.

    Args:
        in_features: length of $h$.
        num_classes: $K$, the rows of $W$.
        adaptive: whether each token has a $\lambda$ of its own.
        lam: $\lambda_0 > 0$.
        alpha: $\alpha > 0$; None is $2 \log K / \lambda_0$, as in the authors' code.
        margin: $c_k$.
        normalize: None; "l1" divides scores by the mean of their magnitudes, as the authors' code does where it is
            adaptive, "softplus" takes softplus first, as it does elsewhere.
        examples: 0, or how many training examples to keep a $\lambda$ for, as the authors' code does: a call with
            `index=` then takes one step from the $\lambda$ that each example had, in the place of the maximum.
        **common: the options of every head.

    Attributes:
        lambdas: (examples,), what is kept of each example.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("ldr-losses", in_features=8, num_classes=4, adaptive=False, margin=0.0)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # log 4 - log 4
        0.0

    Source:
        Zhu, Ying and Yang, 2023, Label Distributionally Robust Losses for Multi-class Classification: Consistency,
        Robustness and Adaptivity, arXiv:2112.14869. The default margin is that of the authors' adaptive loss.
    """

    lambdas: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        adaptive: bool = True,
        lam: float = 1.0,
        alpha: float | None = None,
        margin: float = 1.0,
        normalize: Normalize | None = None,
        examples: int = 0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if not lam > 0:
            raise ValueError(f"lam: expected a number above 0, got {lam!r}")
        if alpha is not None and not alpha > 0:
            raise ValueError(f"alpha: expected a number above 0 or None, got {alpha!r}")
        if normalize not in {None, "l1", "softplus"}:
            raise ValueError(f"normalize: expected None, 'l1' or 'softplus', got {normalize!r}")
        if examples < 0 or (examples and not adaptive):
            raise ValueError(f"examples: expected at least 0, and 0 where not adaptive, got {examples}")
        self.adaptive, self.lam, self.margin, self.normalize = adaptive, lam, margin, normalize
        self.alpha = price(num_classes, lam) if alpha is None else alpha
        self.register_buffer("lambdas", torch.full((examples,), float(lam)))

    def normalized(self, scores: Tensor) -> Tensor:
        """Return the scores that the loss compares."""
        if self.normalize is None:
            return scores
        scores = F.softplus(scores) if self.normalize == "softplus" else scores
        return scores / scores.abs().mean(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the losses."""
        if not self.adaptive:
            return ldr_kl(self.normalized(scores), target, lam=self.lam, margin=self.margin)
        return self.adapted(scores, target, None)

    def adapted(self, scores: Tensor, target: Tensor, lam: Tensor | None) -> Tensor:
        """Return the losses at given lambdas (n,); None is those of the maximum."""
        scores = self.normalized(scores)
        return aldr_kl(scores, target, lam0=self.lam, alpha=self.alpha, margin=self.margin, lam=lam)

    def forward(self, input: Tensor, target: Tensor, *, index: Tensor | None = None) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each in [0, num_classes) or `ignore_index`.
            index: the training examples' numbers, int64 (...), each in [0, examples); their lambdas are updated first.
                None takes the lambdas of the maximum and keeps nothing.
        """
        if index is None:
            return super().forward(input, target)
        linear = self.scored(input)
        self.check(linear, target)
        if index.shape != target.shape or bool(((index < 0) | (index >= len(self.lambdas))).any()):
            raise ValueError(f"index: expected numbers in [0, {len(self.lambdas)}), one a target")
        kept = target != self.ignore_index
        self.update(linear.input[kept], index[kept])
        return self.reduced_by(self._stored, linear, target, self.lambdas[index])

    def _stored(self, scores: Tensor, target: Tensor, lam: Tensor) -> Tensor:
        return self.adapted(scores, target, lam.to(scores.dtype))

    @torch.no_grad()
    def update(self, input: Tensor, index: Tensor) -> None:
        """Take a step from the lambdas of examples (N,) with features (N, d)."""
        for part in chunks(len(input), self.num_classes, self.chunk_size):
            scores = self.normalized(self.logits(input[part]).to(wide(input.dtype)))
            before = self.lambdas[index[part]].to(scores.dtype)
            after = next_lambda(scores, before, lam0=self.lam, alpha=self.alpha)
            self.lambdas[index[part]] = after.to(self.lambdas.dtype)
