"""Docstrings that find the words of their functions' code, by three losses (Gupta et al., 2023)."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.functions import Function, TextEncoder, functions, pieces
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part, trained
from manymax.heads.cosine import unit
from manymax.heads.registry import create_head
from manymax.heads.soft_topk import soft_topk

STEP = 1e-6  # of the central differences


class Tagged(NamedTuple):
    """The task, and its labels' words."""

    task: Given
    labels: Tensor


class Tagger(nn.Module):
    """One encoder of queries and labels, and a head over all labels."""

    def __init__(self, labels: Tensor, head: nn.Module, buckets: int, width: int) -> None:
        super().__init__()
        self.encoder, self.head, self.labels = TextEncoder(buckets, width), head, labels

    def forward(self, queries: Tensor, wanted: Tensor) -> Tensor:
        """Return the head's loss."""
        loss: Tensor = self.head(self.encoder(queries), wanted, candidates=self.encoder(self.labels))
        return loss

    @torch.no_grad()
    def first(self, queries: Tensor, wanted: Tensor, k: int) -> Tensor:
        """Return which of the k labels of the highest cosines are wanted, (n, k)."""
        scores = unit(self.encoder(queries)) @ unit(self.encoder(self.labels)).T
        return wanted.gather(1, scores.topk(k, dim=1).indices)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the three losses, then measure soft top-k itself."""
    tagged = tags(numbers["buckets"], numbers["limit"], numbers["positives"], numbers["occurrences"])
    heads: dict[str, tuple[str, dict[str, Any]]] = {
        "infonce": ("decoupled-softmax", {"form": "infonce"}),
        "decoupled": ("decoupled-softmax", {}),
        "topk": ("soft-topk", {"k": 5, "alpha": 2.0}),
    }
    queries, wanted = tagged.task.validation
    count = wanted.sum(1)
    many = count > count.median()
    one, five, recall = {}, {}, {}
    for index, (name, (head, options)) in enumerate(heads.items()):
        tell = part(progress, name, index, len(heads))
        make = partial(tagger, tagged.labels, head, options, numbers["buckets"], numbers["width"])
        model: Tagger = trained(make, tagged.task, seed, numbers, tell)
        hits = model.first(queries, wanted, 5)
        one[name], five[name] = 100 * float(hits[:, 0].mean()), 100 * hits.mean(1)
        recall[name] = 100 * float((hits.sum(1) / count).mean())
    gain = five["decoupled"] - five["infonce"]
    return {
        "precision_at_1_gain": one["decoupled"] - one["infonce"],
        "precision_at_5_gain": float(gain.mean()),
        "many_positives_gain": float(gain[many].mean() - gain[~many].mean()),
        "topk_recall_gain": recall["topk"] - recall["decoupled"],
        **topk_errors(seed, **numbers["sizes"]),
        "infonce_precision_at_1": one["infonce"],
        "infonce_precision_at_5": float(five["infonce"].mean()),
        "decoupled_recall_at_5": recall["decoupled"],
    }


def tagger(labels: Tensor, head: str, options: dict[str, Any], buckets: int, width: int) -> Tagger:
    """Return a new model; the encoder starts the same whatever the head, whose own rows are not used."""
    model = Tagger(labels, nn.Identity(), buckets, width)
    model.head = create_head(head, in_features=width, num_classes=len(labels), **options)
    model.head.requires_grad_(requires_grad=False)
    return model


def tags(buckets: int, limit: int, positives: int, occurrences: int) -> Tagged:
    """Return docstrings with the words of their functions' bodies as labels, those of enough functions."""
    train, validation = ([each for each in functions() if each.held_out == held_out] for held_out in (False, True))
    counts = Counter(word for each in train for word in each.body)
    labels = sorted(word for word, count in counts.items() if count >= occurrences)
    place = {word: index for index, word in enumerate(labels)}

    def examples(split: list[Function]) -> tuple[Tensor, Tensor]:
        found = [(each, [place[word] for word in each.body if word in place][:positives]) for each in split]
        found = [(each, own) for each, own in found if own]
        wanted = torch.zeros(len(found), len(labels))
        for row, (_, own) in zip(wanted, found, strict=True):
            row[own] = 1
        return pieces([each.doc for each, _ in found], buckets, limit), wanted

    return Tagged(Given(examples(train), examples(validation)), pieces([[word] for word in labels], buckets, limit))


def topk_errors(seed: int, *, rows: int, labels: int) -> Metrics:
    """Return how far the weights' sum is from k, and the gradient of a log weight from central differences."""
    generator = torch.Generator().manual_seed(seed)
    x = 5 * torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    k = torch.randint(1, labels, (rows,), generator=generator)
    sums = soft_topk(x, k, alpha=2.0).sum(1)
    direction, weights = torch.randn(2, rows, labels, generator=generator, dtype=torch.float64).unbind()

    def value(shift: float) -> Tensor:
        return (weights * soft_topk(x + shift * direction, k, alpha=2.0, log=True)).sum()

    leaf = x.clone().requires_grad_()
    loss = (weights * soft_topk(leaf, k, alpha=2.0, log=True)).sum()
    slope = float((torch.autograd.grad(loss, leaf)[0] * direction).sum())
    expected = float((value(STEP) - value(-STEP)) / (2 * STEP))
    return {
        "sum_error": float((sums - k).abs().max()),
        "gradient_error": abs(slope - expected) / max(abs(expected), STEP),
    }
