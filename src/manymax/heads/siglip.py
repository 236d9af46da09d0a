"""Each pair on its own: a sigmoid's cross-entropy over all pairs, with learnt scale and bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.chunk import Linear
from manymax.heads.head import Common
from manymax.heads.learnt_cosine import LearntCosineHead

if TYPE_CHECKING:
    from typing_extensions import Unpack

Keep = Literal["random", "hard", "easy"]


class SigLIPHead(LearntCosineHead):
    r"""Sigmoid cross-entropy of every pair of a token and a candidate, summed over the candidates.

    $$L_i = -\sum_j \log \sigma(z_{ij} s_{ij}), \qquad s_{ij} = e^t \cos(h_i, w_j) + b$$

    with $h_i$ the features, $w_j$ a candidate or a class's row, $z_{ij} = 1$ where $j$ belongs to $i$ and $-1$
    elsewhere, and $t$ and $b$ learnt. No sum over a row is shared, so one pass over chunks of tokens is enough, and
    candidates beyond the tokens are further negatives. A soft target $p_{ij} \in [0, 1]$ makes a pair's loss
    $-p_{ij} \log \sigma(s_{ij}) - (1 - p_{ij}) \log \sigma(-s_{ij})$.

    Args:
        in_features: length of $h$.
        num_classes: the rows that stand in where a call gives no candidates.
        scale: what $e^t$ starts from, above 0.
        logit_bias: what $b$ starts from; far below 0 the many negatives weigh little at first.
        negatives: how many negatives of a token count; None is all.
        keep: which ones: those of the highest scores ("hard"), of the lowest ("easy"), or the candidates that follow
            the target in an order drawn anew for each batch ("random"), in which each is as likely as any other.
        **common: the options of every head; memory is that of `chunk_size` rows of scores, forward and backward.

    Raises:
        ValueError: if an option is out of range, a target does not fit the features, or soft targets are given to a
            head that leaves out negatives.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("siglip", in_features=2, num_classes=4, scale=1.0, logit_bias=0.0)
        >>> head(torch.eye(2), torch.arange(2), candidates=torch.eye(2)).item()  # log(1 + 1 / e) + log 2
        1.0064088106155396

    Source:
        Zhai et al., 2023, Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343. There negatives are left out
        of a whole batch at a given ratio; here of each token.
    """

    soft_targets = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        scale: float = 10.0,
        logit_bias: float = -10.0,
        negatives: int | None = None,
        keep: Keep = "hard",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, scale=scale, **common)
        if negatives is not None and negatives < 1:
            raise ValueError(f"negatives: expected at least 1 or None, got {negatives}")
        if keep not in get_args(Keep):
            raise ValueError(f"keep: expected 'random', 'hard' or 'easy', got {keep!r}")
        self.negatives, self.keep = negatives, keep
        self.logit_bias = nn.Parameter(torch.tensor(float(logit_bias)))

    def scored(self, input: Tensor, candidates: Tensor | None = None) -> Linear:
        """Return the features times the scale and the rows, all made of length 1, and the bias."""
        linear = super().scored(input, candidates)
        return linear._replace(bias=self.logit_bias.expand(len(linear.rows)))

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss; the order of random negatives is drawn here, so that all chunks share it."""
        if self.negatives is None:
            return super().reduced(linear, target)
        if target.is_floating_point():
            raise ValueError("target: expected int64 where negatives are left out, got soft targets")
        order = torch.randperm(len(linear.rows), device=target.device)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))

        def losses(scores: Tensor, wanted: Tensor) -> Tensor:
            return self._fewer(scores, wanted, order, place)

        return self.reduced_by(losses, linear, target)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the sum over all candidates."""
        if target.is_floating_point():
            return F.binary_cross_entropy_with_logits(scores, target.to(scores.dtype), reduction="none").sum(-1)
        picked = scores.gather(1, target[:, None])[:, 0]
        return F.softplus(scores).sum(-1) - picked  # softplus(-s) = softplus(s) - s

    def _fewer(self, scores: Tensor, target: Tensor, order: Tensor, place: Tensor) -> Tensor:
        """Return the sum over the target and the negatives that count."""
        picked, count = scores.gather(1, target[:, None]), scores.shape[1]
        size = min(self.negatives or count, count - 1)
        if self.keep == "random":
            steps = torch.arange(1, size + 1, device=target.device)
            chosen = scores.gather(1, order[(place[target][:, None] + steps) % count])
        else:
            hard = self.keep == "hard"
            others = scores.scatter(1, target[:, None], -torch.inf if hard else torch.inf)
            chosen = others.topk(size, dim=1, largest=hard).values
        return F.softplus(-picked)[:, 0] + F.softplus(chosen).sum(-1)
