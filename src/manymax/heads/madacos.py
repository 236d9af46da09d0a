"""Cross-entropy over cosines whose scale and margin follow the median example of the batch."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import Linear, chunks, wide
from manymax.heads.cosine import CosineHead
from manymax.heads.head import Common
from manymax.heads.margins import at, replaced

if TYPE_CHECKING:
    from typing_extensions import Unpack

LEAST_SCALE = 32.0
ODDS = 9999999.0  # of an example whose cosine is 1 where the others' are those of the median, 1 - 1e-7
Others: TypeAlias = Literal["example", "median", "mean"]


class MadaCosHead(CosineHead):
    r"""Softmax of cosines with a scale and a margin that are set anew for each batch, from its median.

    $$L = -\log \frac{e^{s (c_y - m)}}{e^{s (c_y - m)} + \sum_{j \ne y} e^{s c_j}}, \qquad
    s = \max\left(32, \frac{\log(9999999\, (1 - \alpha) / \alpha)}{1 - \tilde c}\right), \qquad
    m = \max\left(0, \tilde c - \frac{1}{s} \log \frac{\alpha B}{1 - \alpha}\right)$$

    with $c_j$ the cosine between the features $h$ and the row $w_j$ of a class, $y$ the target, $\tilde c$ the median
    over the batch of $c_y$ (the lower of two middle ones) and $B$ the sum $\sum_{j \ne y} e^{s c_j}$ of the example
    that has it. Where $m$ is above 0, that example's target has probability $\alpha$, so that half of the batch keeps a
    strong gradient however good the cosines become. Neither $s$ nor $m$ has a gradient.

    In evaluation mode there is no margin, and $s$ is that of the last batch in training, as it is in `logits` and
    `nll`; before the first batch it is 32.

    Args:
        in_features: length of $h$.
        num_classes: number of rows.
        alpha: $\alpha$ in (0, 1).
        others: whose $B$ is taken: that of the "example" with the median cosine, or the "median" or "mean" of the
            batch.
        **common: the options of every head but `bias`.

    Attributes:
        adaptive_scale: $s$, a buffer.
        adaptive_margin: $m$, a buffer.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("madacos", in_features=2, num_classes=2)
        >>> _ = head.load_state_dict({"weight": torch.eye(2)}, strict=False)
        >>> loss = head(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
        >>> round(loss.exp().reciprocal().item(), 4)  # alpha: the only example is the median
        0.1

    Source:
        Zhu et al., 2023, Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image
        Retrieval, arXiv:2308.04008. The authors' configurations set alpha to 0.02, and their code computes the scale
        from the targets in evaluation, too.
    """

    adaptive_scale: Tensor
    adaptive_margin: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        alpha: float = 0.1,
        others: Others = "example",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, scale=1.0, **common)
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: expected a number in (0, 1), got {alpha!r}")
        if others not in {"example", "median", "mean"}:
            raise ValueError(f"others: expected 'example', 'median' or 'mean', got {others!r}")
        self.alpha, self.others = alpha, others
        self.register_buffer("adaptive_scale", torch.tensor(LEAST_SCALE))
        self.register_buffer("adaptive_margin", torch.tensor(0.0))

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss; in training with a scale and a margin that are set here, for this batch."""
        self.check(linear, target)
        kept = target != self.ignore_index
        if self.training and bool(kept.any()):
            self._adapt(Linear(linear.input.detach()[kept], linear.rows.detach(), None), target[kept])
        # Copies, since the backward pass may come after another batch.
        numbers = (self.adaptive_scale.clone(), self.adaptive_margin.clone() if self.training else None)
        return self.reduced_by(partial(self._losses, *numbers), linear, target)

    @torch.no_grad()
    def _adapt(self, linear: Linear, target: Tensor) -> None:
        """Set scale and margin from features (n, d) and targets (n,) that all count."""
        own = torch.cat(
            [
                (linear.input[part] * linear.rows[target[part]]).sum(-1, dtype=wide(linear.input.dtype))
                for part in chunks(len(target), linear.rows.shape[1], self.chunk_size)
            ]
        )
        median, place = own.median(0)
        odds = (1 - self.alpha) / self.alpha
        room = (1 - median).clamp_min(torch.finfo(own.dtype).eps)
        largest = torch.finfo(self.adaptive_scale.dtype).max  # 65504 in float16
        self.adaptive_scale.copy_((math.log(ODDS * odds) / room).clamp(LEAST_SCALE, largest))
        scale = self.adaptive_scale.to(own.dtype)  # as rounded, if the head is in few bits
        if self.others == "example":
            log_others = self._log_others(linear, target, scale, slice(int(place), int(place) + 1))[0]
        else:
            parts = chunks(len(target), len(linear.rows), self.chunk_size)
            rows = torch.cat([self._log_others(linear, target, scale, part) for part in parts])
            log_others = rows.median() if self.others == "median" else rows.logsumexp(0) - math.log(len(rows))
        margin = median - (log_others - math.log(odds)) / scale
        # Without any other row there is nothing to win against, and the margin would be infinite.
        self.adaptive_margin.copy_(torch.where(margin.isfinite(), margin.clamp_min(0), 0))

    def _log_others(self, linear: Linear, target: Tensor, scale: Tensor, part: slice) -> Tensor:
        """Return log B of some tokens, (n,)."""
        scores = scale * (linear.input[part] @ linear.rows.T).to(scale.dtype)
        return replaced(scores, target[part], scores.new_full((len(scores),), -math.inf)).logsumexp(-1)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy, in training with the last margin."""
        return self._losses(self.adaptive_scale, self.adaptive_margin if self.training else None, scores, target)

    def _losses(self, scale: Tensor, margin: Tensor | None, scores: Tensor, target: Tensor) -> Tensor:
        if margin is not None:
            scores = replaced(scores, target, at(scores, target) - margin.to(scores.dtype))
        return F.cross_entropy(scale.to(scores.dtype) * scores, target, reduction="none")

    def logits(self, input: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return the cosines times the last scale, (..., num_classes) or one for each candidate."""
        return super().logits(input, candidates) * self.adaptive_scale.to(input.dtype)
