"""Late interaction: token vectors behind a small network, compared by the largest cosine of each query token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.chunk import SCORES, Linear, reduce, wide
from manymax.heads.chunked_loss import Way, each, total
from manymax.heads.cosine import CosineHead, unit
from manymax.heads.head import Common
from manymax.heads.maxsim import largest, maxsim
from manymax.heads.projection import Kind, Projection

if TYPE_CHECKING:
    from typing_extensions import Unpack


class MaxSimHead(CosineHead):
    r"""Projected token vectors, the sum over query tokens of the largest cosine, and the cross-entropy over documents.

    $$L = -\log \frac{e^{s(q, d_y) / \tau}}{\sum_k e^{s(q, d_k) / \tau}}, \qquad
    s(q, d) = \sum_i \max_j \cos(f(q_i), f(d_j))$$

    with $q_i$ and $d_j$ the token vectors of query and document, $f$ the projection and $\tau$ the temperature. A
    gradient reaches a document only through the tokens that are some query token's largest. A call without documents
    takes the class rows as documents of one token, and features as queries of one.

    Args:
        in_features: length of the token vectors.
        num_classes: the rows that stand in where a call gives no documents.
        out_features: length of the projected vectors; None is ColBERT's 128, or `in_features` if that is less.
        projection: "linear" as in ColBERT, "ffn" or "glu".
        depth: maps of "ffn", at least 2.
        expansion: width between the maps over `in_features`, above 0.
        activation: "identity", "relu", "gelu" or "silu".
        residual: whether a map that skips the others is added.
        temperature: $\tau$, above 0.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or queries, documents, masks and targets do not fit.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("colbert-projections", in_features=8, num_classes=2, projection="glu", residual=True)
        >>> queries, documents = torch.randn(4, 5, 8), torch.randn(4, 9, 8)
        >>> head(queries, torch.arange(4), candidates=documents).shape
        torch.Size([])

    Source:
        Clavié et al., 2025, Simple Projection Variants Improve ColBERT Performance, arXiv:2510.12327; MaxSim: Khattab &
        Zaharia, 2020, arXiv:2004.12832. The best widths and activation were not at hand: the defaults are ColBERT's
        projection, and 2 x with GELU for the others. PyLate, which the authors use, skips within each layer and gives
        masked tokens a score of 0, here they cannot be the largest.
    """

    soft_targets = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: int | None = None,
        projection: Kind = "linear",
        depth: int = 2,
        expansion: float = 2.0,
        activation: str = "gelu",
        residual: bool = False,
        temperature: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)
        self.projection = Projection(
            in_features,
            min(in_features, 128) if out_features is None else out_features,
            kind=projection,
            depth=depth,
            expansion=expansion,
            activation=activation,
            residual=residual,
        )

    def vectors(self, x: Tensor) -> Tensor:
        """Return projected vectors of length 1, (..., out_features)."""
        return unit(self.projection(x))

    def scored(self, input: Tensor, candidates: Tensor | None = None) -> Linear:
        """Return queries and documents of one token each, projected."""
        if input.shape[-1:] != (self.in_features,):
            raise ValueError(f"input: expected (..., {self.in_features}), got {tuple(input.shape)}")
        rows = self.weight if candidates is None else candidates
        if rows.dim() != 2 or rows.shape[1] != self.in_features:
            raise ValueError(f"candidates: expected (count, {self.in_features}), got {tuple(rows.shape)}")
        return Linear(self.vectors(input) * self.scale, self.vectors(rows), None)

    def logits(
        self,
        input: Tensor,
        candidates: Tensor | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the scores, (..., num_classes), or (..., count) for queries and documents as in `forward`."""
        if candidates is None or candidates.dim() != 3:
            return super().logits(input, candidates)
        query = self.vectors(input) * self.scale
        shape = query.shape[:-2]
        scores = maxsim(
            query.reshape(-1, *query.shape[-2:]),
            self.vectors(candidates),
            mask=mask,
            query_mask=None if query_mask is None else query_mask.reshape(-1, query.shape[-2]),
        )
        return scores.view(*shape, -1)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        candidates: Tensor | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: token vectors (..., tokens, in_features) of queries where documents are given; else (...,
                in_features), queries of one token.
            target: int64 (...), each a document's number, a class, or `ignore_index`; or a teacher's floating
                probabilities (..., count). It has no gradient.
            candidates: documents, (count, tokens, in_features); (count, in_features) are documents of one token, and
                None is the classes' rows.
            mask: of the documents' tokens, bool (count, tokens), True = keep; None keeps all.
            query_mask: of the queries' tokens, bool (..., tokens), True = keep; None keeps all.
        """
        if candidates is not None and candidates.dim() == 3:
            return self._late(input, target, candidates, mask, query_mask)
        if mask is not None or query_mask is not None:
            raise ValueError("mask: expected None without documents of several tokens, got a tensor")
        return self.reduced(self.scored(self.clear(input, target), candidates), target)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy over documents."""
        target = target.to(scores.dtype) if target.is_floating_point() else target
        return F.cross_entropy(scores, target, reduction="none")

    def _late(
        self, input: Tensor, target: Tensor, documents: Tensor, mask: Tensor | None, query_mask: Tensor | None
    ) -> Tensor:
        """Return the loss of queries and documents of several tokens, some queries' products at a time."""
        if input.dim() < 2 or input.shape[-1] != self.in_features:
            raise ValueError(f"input: expected (..., tokens, {self.in_features}), got {tuple(input.shape)}")
        if documents.shape[-1] != self.in_features:
            raise ValueError(f"candidates: expected (..., {self.in_features}), got {tuple(documents.shape)}")
        (*shape, tokens), (count, length) = input.shape[:-1], documents.shape[:-1]
        for name, given, expected in (
            ("mask", mask, documents.shape[:-1]),
            ("query_mask", query_mask, input.shape[:-1]),
        ):
            if given is not None and (given.dtype != torch.bool or given.shape != expected):
                raise ValueError(f"{name}: expected bool {tuple(expected)}, got {given.dtype} {tuple(given.shape)}")
        if mask is not None and not bool(mask.any(-1).all()):
            raise ValueError("mask: expected a token in each document, got one without")
        self.check(Linear(input[..., 0, :], documents[:, 0], None), target)
        target = target.reshape(-1, *target.shape[len(shape) :])
        soft = target.is_floating_point()
        kept = torch.ones(len(target), dtype=torch.bool, device=target.device) if soft else target != self.ignore_index
        number = kept.nonzero()[:, 0]
        query = self.vectors(input.reshape(-1, tokens, self.in_features)[number]) * self.scale
        seen = None if query_mask is None else query_mask.reshape(-1, tokens)
        linear = Linear(query.flatten(0, 1), self.vectors(documents).flatten(0, 1), None)

        def losses(products: Tensor, numbers: Tensor) -> Tensor:
            chosen = numbers.view(-1, tokens)[:, 0]
            products = products.view(len(chosen), tokens, count, length)
            scores = largest(products, mask, None if seen is None else seen[chosen])
            found = self.losses(scores, target[chosen])
            return F.pad(found[:, None], (0, tokens - 1)).flatten()  # a query's loss is its first token's

        size = max(1, SCORES // max(1, tokens * count * length)) if self.chunk_size is None else self.chunk_size
        way = Way(losses, tokens * size, torch.float64 if self.float64 else wide(query.dtype))
        numbers = number.repeat_interleave(tokens)
        if self.reduction == "none":
            found = each(way, linear, numbers, ()).view(-1, tokens)[:, 0]
            return reduce(found, kept.view(shape), self.reduction)
        loss = total(way, linear, numbers, ())
        return loss / max(1, len(number)) if self.reduction == "mean" else loss
