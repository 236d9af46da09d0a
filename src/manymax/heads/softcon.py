"""Pairs that belong together as much as their labels overlap."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import Linear
from manymax.heads.cosine import CosineHead, unit
from manymax.heads.head import Common

if TYPE_CHECKING:
    from typing_extensions import Unpack

Similarity = Literal["cosine", "jaccard"]


def label_similarity(labels: Tensor, others: Tensor, similarity: Similarity = "cosine") -> Tensor:
    r"""Compare multi-hot labels: their cosine $|a \cap b| / \sqrt{|a| |b|}$, or $|a \cap b| / |a \cup b|$ ("jaccard").

    Args:
        labels: (n, labels), above 0 where a label is there.
        others: (m, labels).
        similarity: which of the two.

    Returns:
        Numbers in [0, 1], (n, m); 0 where nothing is labelled.

    Example:
        >>> import torch
        >>> from manymax.heads.softcon import label_similarity
        >>> label_similarity(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "jaccard")
        tensor([[0.5000, 1.0000]])
    """
    a, b = ((x > 0).to(labels.dtype) for x in (labels, others))
    if similarity == "cosine":
        return (unit(a) @ unit(b).T).clamp(max=1)
    shared = a @ b.T
    either = a.sum(-1, keepdim=True) + b.sum(-1) - shared
    return shared / either.clamp(min=1)


class SoftConHead(CosineHead):
    r"""Sigmoid cross-entropy of each pair's cosine over a temperature against how much the pair's labels overlap.

    $$L_i = -\frac{1}{M} \sum_j \left[ y_{ij} \log \sigma(s_{ij}) + (1 - y_{ij}) \log (1 - \sigma(s_{ij})) \right]
    + \gamma L^{\mathrm{InfoNCE}}_i, \qquad s_{ij} = \frac{\cos(h_i, w_j)}{\tau}$$

    with $h_i$ the features, $w_j$ one of $M$ candidates, $y_{ij}$ the similarity of their labels, $\tau$ the
    temperature and $\gamma$ the weight of the cross-entropy of a token's own candidate. Where scenes share some of
    their labels, no pair is simply positive or negative.

    Args:
        in_features: length of $h$.
        num_classes: the rows that stand in where a call gives no candidates, one a label.
        temperature: $\tau$, above 0.
        similarity: of multi-hot labels: their cosine, or "jaccard", the shared over all.
        instance: $\gamma$, at least 0.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or labels and candidates do not fit.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("softcon", in_features=8, num_classes=3)
        >>> views, labels = torch.zeros(2, 8), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
        >>> round(head(views, labels, candidates=views).item(), 4)  # log 2, as all cosines are 0
        0.6931

    Source:
        Wang, Albrecht & Zhu, 2024, Multi-Label Guided Soft Contrastive Learning for Efficient Earth Observation
        Pretraining, arXiv:2405.20462. The paper's text was not at hand and its code has no loss: the similarity, the
        temperature and the weight of the second term are our choice, as is the mean over candidates.
    """

    soft_targets = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        temperature: float = 0.2,
        similarity: Similarity = "cosine",
        instance: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity: expected 'cosine' or 'jaccard', got {similarity!r}")
        if not instance >= 0:
            raise ValueError(f"instance: expected at least 0, got {instance!r}")
        self.similarity, self.instance = similarity, instance

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        candidates: Tensor | None = None,
        candidate_labels: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: floating (..., labels), above 0 where a token has a label; or int64 (...), the one row that belongs
                to a token, or `ignore_index`.
            candidates: rows (count, in_features) in the place of the labels' own; None is those.
            candidate_labels: (count, labels); None says that candidate i is another view of token i.
        """
        linear = self.scored(self.clear(input, target), candidates)
        if not target.is_floating_point():
            if candidate_labels is not None:
                raise ValueError(f"target: expected labels (..., {candidate_labels.shape[-1]}), got {target.dtype}")
            return self.reduced(linear, target)
        labels = target.reshape(-1, target.shape[-1])
        if candidates is None:
            others = torch.eye(self.num_classes, dtype=target.dtype, device=target.device)
        else:
            others = labels if candidate_labels is None else candidate_labels.to(target.dtype)
        if others.shape != (len(linear.rows), target.shape[-1]):
            raise ValueError(
                f"candidate_labels: expected {(len(linear.rows), target.shape[-1])}, got {tuple(others.shape)}"
            )
        if not self.instance:
            return self.reduced_by(partial(self._soft, others=others), linear, target)
        if candidates is None or candidate_labels is not None:
            raise ValueError("instance: expected 0 where no candidate is a token's own view, got " + str(self.instance))
        numbers = torch.arange(len(labels), device=target.device).view(target.shape[:-1])
        return self.reduced_by(partial(self._soft, others=others), linear, target, numbers)

    def check(self, linear: Linear, target: Tensor) -> None:
        """Refuse shapes and dtypes that do not fit; labels need not be as many as rows."""
        if target.is_floating_point() and target.shape[:-1] == linear.input.shape[:-1]:
            target = target.new_zeros(()).expand(*target.shape[:-1], len(linear.rows))
        super().check(linear, target)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the loss where one row belongs to a token, and no other does."""
        pairs = (F.softplus(scores).sum(-1) - scores.gather(1, target[:, None])[:, 0]) / scores.shape[-1]
        if not self.instance:
            return pairs
        return pairs + self.instance * F.cross_entropy(scores, target, reduction="none")

    def _soft(self, scores: Tensor, labels: Tensor, own: Tensor | None = None, *, others: Tensor) -> Tensor:
        """Return the loss of rows of scores whose tokens and candidates have labels."""
        wanted = label_similarity(labels.to(scores.dtype), others.to(scores.dtype), self.similarity)
        pairs = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none").mean(-1)
        return pairs if own is None else pairs + self.instance * F.cross_entropy(scores, own, reduction="none")
