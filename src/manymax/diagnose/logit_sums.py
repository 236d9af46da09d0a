"""The output layer's scores: how large they are, and whether rounding has ended learning."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100  # a target that takes no part, as in torch
ROWS = 4096  # scores are looked at so many rows at a time


def softmax_collapse(logits: Tensor) -> Tensor:
    r"""Return for each row whether float32 rounding makes softmax give one class all the weight.

    $$\sum_j \mathrm{fl}\left(e^{z_j - \max_k z_k}\right) = 1$$

    with $z$ a row of scores and $\mathrm{fl}$ rounding to float32: the largest exponential, which is 1, absorbs all the
    others. If that class is the target, its loss and its gradient are exactly 0 and the row teaches nothing any more.

    Args:
        logits: (..., classes), any floating dtype.

    Returns:
        bool, (...).

    Example:
        >>> import torch, manymax as mm
        >>> mm.diagnose.softmax_collapse(torch.tensor([[0.0, 30.0], [0.0, 10.0]]))
        tensor([ True, False])

    Source:
        Prieto et al., 2025, Grokking at the Edge of Numerical Stability, arXiv:2501.04697.
    """
    logits = logits.float()
    return (logits - logits.amax(-1, keepdim=True)).exp().sum(-1) == 1


class LogitSums:
    """Running sums over rows of scores and their targets."""

    def __init__(self) -> None:
        self.rows = self.collapsed = self.silent = self.right = 0
        self.largest = 0.0
        self.range = 0.0
        self.loss = 0.0
        self.probability = 0.0

    @torch.no_grad()
    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Add rows.

        Args:
            logits: (..., classes).
            targets: classes (...), -100 where nothing is asked.
        """
        flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        for rows, classes in zip(torch.split(flat, ROWS), torch.split(wanted, ROWS), strict=True):
            asked = classes != IGNORED
            self._add(rows[asked].float(), classes[asked])

    def _add(self, logits: Tensor, targets: Tensor) -> None:
        if not len(targets):
            return
        logs = logits.log_softmax(-1)
        target = logs.gather(-1, targets[:, None])[:, 0]
        self.rows += len(targets)
        self.collapsed += int(softmax_collapse(logits).sum())
        self.silent += int((target == 0).sum())  # log p = 0: the probability has rounded to 1
        self.right += int((logits.argmax(-1) == targets).sum())
        self.largest = max(self.largest, float(logits.abs().max()))
        self.range = max(self.range, float((logits.amax(-1) - logits.amin(-1)).max()))
        self.loss -= float(target.double().sum())
        self.probability += float(target.double().exp().sum())

    def numbers(self) -> dict[str, float]:
        """Return the means and extremes; `radius` is the cheap bound on safe steps, pi over the largest range."""
        rows = max(self.rows, 1)
        return {
            "loss": self.loss / rows,
            "accuracy": self.right / rows,
            "target_probability": self.probability / rows,
            "largest_logit": self.largest,
            "logit_range": self.range,
            "collapse": self.collapsed / rows,
            "no_gradient": self.silent / rows,
            "radius": torch.pi / self.range if self.range else float("inf"),
        }
