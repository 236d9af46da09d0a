"""Losses that are compared on labels of which many are wrong, and networks that learn from several at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.comp_sum import comp_sum_loss
from manymax.heads.ldr import aldr_kl, ldr_kl
from manymax.heads.svm import hinge

LOG_0 = -4.0  # what reverse cross-entropy takes for the logarithm of 0
Loss = Callable[[Tensor, Tensor], Tensor]


def reverse(scores: Tensor, target: Tensor) -> Tensor:
    """Return reverse cross-entropy, -sum p log q with q the one-hot target (Wang et al., 2019, arXiv:1908.06112)."""
    return -LOG_0 * comp_sum_loss(scores, target, 2.0)


def symmetric(scores: Tensor, target: Tensor) -> Tensor:
    """Return symmetric cross-entropy, 0.1 of cross-entropy and reverse cross-entropy (the same)."""
    return 0.1 * F.cross_entropy(scores, target, reduction="none") + reverse(scores, target)


def normalized_and_reverse(scores: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy over its sum over all labels, plus `reverse` (Ma et al., 2020, arXiv:2006.13554)."""
    logs = scores.log_softmax(-1)
    return logs.gather(1, target[:, None])[:, 0] / logs.sum(-1) + reverse(scores, target)


def robust_log(scores: Tensor, target: Tensor, alpha: float = 0.01) -> Tensor:
    """Return log((1 + a) / (a + p_y)) and the mean of log((a + p_j) / a) over the others, with p the softmax."""
    logs = (scores.softmax(-1) + alpha).log()
    own = logs.gather(1, target[:, None])[:, 0]
    others = (logs.sum(-1) - own) / (scores.shape[1] - 1) - math.log(alpha)
    return math.log(1 + alpha) - own + others


def weston_watkins(scores: Tensor, target: Tensor) -> Tensor:
    """Return the sum over the other classes of max(0, 1 + z_j - z_y)."""
    return F.relu(1 + scores - scores.gather(1, target[:, None])).sum(-1) - 1


def mean_1(scores: Tensor) -> Tensor:
    """Return scores (n, C) over the mean of their magnitudes."""
    return scores / scores.abs().mean(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


def adaptive(margin: float) -> Loss:
    """Return ALDR-KL as the authors' code has it but for the maximum over lambda, which is exact here."""
    return lambda scores, target: aldr_kl(mean_1(scores), target, margin=margin)


def all_losses(margin: float) -> dict[str, Loss]:
    """Return the losses by name: scores (n, C) and targets (n,) to losses (n,)."""
    return {
        "ce": lambda scores, target: F.cross_entropy(scores, target, reduction="none"),
        "mae": lambda scores, target: comp_sum_loss(scores, target, 2.0),
        "gce": lambda scores, target: comp_sum_loss(scores, target, 1.7),
        "sce": symmetric,
        "rll": robust_log,
        "nce_rce": normalized_and_reverse,
        "cs": lambda scores, target: hinge(scores, target, p=1, multiclass="crammer-singer"),
        "ww": weston_watkins,
        "ldr": lambda scores, target: ldr_kl(mean_1(F.softplus(scores)), target, margin=margin),
        "aldr": adaptive(margin),
    }


class Networks(nn.Module):
    """Several networks of one hidden layer, which learn side by side from the same start.

    Args:
        count: of networks.
        in_features: of a row.
        hidden: width.
        classes: of the labels.
        loss: scores and targets to losses.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def __init__(self, count: int, in_features: int, hidden: int, classes: int, loss: Loss) -> None:
        super().__init__()
        self.loss = loss
        for name, size, width in (("first", in_features, hidden), ("second", hidden, classes)):
            start = torch.randn(1, size, width) * (2 / size) ** 0.5
            self.register_parameter(name, nn.Parameter(start.repeat(count, 1, 1)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(count, 1, width)))

    def scores(self, inputs: Tensor) -> Tensor:
        """Return scores (count, n, classes) for rows (n, in_features)."""
        hidden = F.relu(inputs @ self.first + self.first_bias)
        return hidden @ self.second + self.second_bias

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over networks of the mean loss for rows (n, in_features) with labels (n, count)."""
        losses = self.loss(self.scores(inputs).flatten(0, 1), targets.T.flatten())
        return losses.sum() / len(inputs)
