"""A teacher's probabilities as targets beside the classes: all of them, or the largest ones that were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manymax.heads.head import Common
from manymax.heads.logit_standardization_kd import kd_loss, kl
from manymax.heads.taught import TaughtHead

if TYPE_CHECKING:
    from typing_extensions import Unpack

Cached = tuple[Tensor, Tensor]


def topk_kl(scores: Tensor, indices: Tensor, log_probs: Tensor) -> Tensor:
    r"""Take KL(p || softmax(scores)) where only some of p's classes are known, the others as one class.

    $$L = \sum_{j \in K} p_j \log \frac{p_j}{q_j} + p_R \log \frac{p_R}{q_R}, \qquad p_R = 1 - \sum_{j \in K} p_j$$

    with $q$ the softmax of the scores, $K$ the known classes and $R$ the others. It is at most the whole divergence,
    and equal to it where all are known.

    Args:
        scores: (..., n).
        indices: the classes in $K$, int64 (..., k), each once.
        log_probs: $\log p_j$ of those, (..., k).

    Returns:
        The loss of each row, (...).

    Example:
        >>> import torch
        >>> from manymax.heads.distillation import topk_kl
        >>> q = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> topk_kl(q, torch.tensor([0]), torch.tensor([0.5]).log()).abs() < 1e-6
        tensor(True)

    Source:
        The chain rule of the Kullback-Leibler divergence, without the part within $R$.
    """
    logs = scores.log_softmax(-1)
    known = kl(log_probs, logs.gather(-1, indices))
    if indices.shape[-1] == scores.shape[-1]:
        return known
    rest = 1 - log_probs.exp().sum(-1)
    lowest = torch.finfo(logs.dtype).min  # finite: a row of -inf alone would have NaN as its gradient
    log_q = logs.scatter(-1, indices, lowest).logsumexp(-1)
    some = rest > 0  # rounding may leave a little below
    rest = torch.where(some, rest, 1)
    return known + torch.where(some, rest * (rest.log() - log_q), 0)


class DistillationHead(TaughtHead):
    r"""Linear classes, cross-entropy and the divergence from a teacher's softened probabilities.

    $$L = w_{CE} \, L_{CE} + w_{KD} \, \tau^2 \, \mathrm{KL} \left( \mathrm{softmax}(t / \tau) \,\|\,
    \mathrm{softmax}(z / \tau) \right), \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $t$ the teacher's logits and $\tau$ the temperature.
    A call without a teacher is plain cross-entropy. In the place of logits the teacher may be its most likely classes
    and their log-probabilities at the same $\tau$, which were kept from an earlier run; all other classes then count as
    one.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        tau: $\tau > 0$.
        ce_weight: $w_{CE}$, at least 0.
        kd_weight: $w_{KD}$, at least 0.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or targets or teacher do not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("distillation", in_features=8, num_classes=4)
        >>> h, y = torch.ones(3, 8), torch.tensor([0, 1, 2])
        >>> logits = head.logits(h).detach()
        >>> logs, indices = (logits / head.tau).log_softmax(-1).topk(2)
        >>> torch.allclose(head(h, y, teacher=(indices, logs)), head(h, y, teacher=logits))  # nothing left to learn
        True

    Source:
        Hinton, Vinyals & Dean, 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        tau: float = 2.0,
        ce_weight: float = 0.5,
        kd_weight: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, ce_weight=ce_weight, kd_weight=kd_weight, **common)
        if not tau > 0:
            raise ValueError(f"tau: expected a number above 0, got {tau!r}")
        self.tau = tau

    def forward(self, input: Tensor, target: Tensor, *, teacher: Tensor | Cached | None = None) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each in [0, num_classes) or `ignore_index`.
            teacher: logits (..., num_classes); or classes, int64 (..., k), each once in a row, with their
                log-probabilities (..., k) at temperature `tau`; None is cross-entropy alone.
        """
        if teacher is None:
            return super().forward(input, target)
        if isinstance(teacher, Tensor):
            return self.by_logits(input, target, teacher)
        indices, log_probs = teacher
        if indices.dtype != torch.int64 or indices.shape != log_probs.shape:
            raise ValueError(
                f"teacher: expected int64 classes in the shape {tuple(log_probs.shape)} of their log-probabilities, "
                f"got {indices.dtype} of shape {tuple(indices.shape)}"
            )
        if bool(((indices < 0) | (indices >= self.num_classes)).any()):
            raise ValueError(f"teacher: expected classes in [0, {self.num_classes})")
        most = float(log_probs.detach().float().exp().sum(-1).max()) if log_probs.numel() else 0.0
        if not most <= 1.01:  # bfloat16 rounds by up to 0.4 %
            raise ValueError(f"teacher: expected log-probabilities of a sum of at most 1, got {most:g}")
        return self.beside(input, target, indices, log_probs)

    def taught(self, scores: Tensor, target: Tensor, *teacher: Tensor) -> Tensor:
        """Return the divergence from the teacher's logits, or from what was kept."""
        del target
        if len(teacher) == 1:
            return kd_loss(scores, teacher[0].to(scores.dtype), tau=self.tau, standardize=False)
        indices, log_probs = teacher
        return self.tau**2 * topk_kl(scores / self.tau, indices, log_probs.to(scores.dtype))
