"""Six projections before MaxSim, learnt on docstrings and code (Clavié et al., 2025)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.functions import Function, functions
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part, trained
from manymax.data.task import Examples
from manymax.heads.colbert_projections import MaxSimHead
from manymax.heads.cosine import unit
from manymax.heads.maxsim import gradient_share, maxsim

BLOCK = 32  # queries that are ranked at once


class Retriever(nn.Module):
    """Fixed word vectors and a head that learns to project them."""

    def __init__(self, vectors: Tensor, head: MaxSimHead) -> None:
        super().__init__()
        self.vectors, self.head = vectors, head
        head.weight.requires_grad = False

    def words(self, numbers: Tensor) -> Tensor:
        """Return each word's vector, half of it the mean of its two neighbours'; 0 is no word."""
        own = self.vectors[numbers]
        beside = torch.zeros_like(own)
        beside[:, 1:] += own[:, :-1] / 2
        beside[:, :-1] += own[:, 1:] / 2
        return (own + beside) / 2

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return the loss with the batch's documents, each query's own at its number."""
        target = torch.arange(len(queries))
        loss: Tensor = self.head(
            self.words(queries),
            target,
            candidates=self.words(documents),
            mask=documents > 0,
            query_mask=queries > 0,
        )
        return loss

    @torch.no_grad()
    def ndcg(self, examples: Examples) -> float:
        """Return NDCG@10 in points, where the document of the same number is the only one that is right."""
        queries, documents = examples
        projected = self.head.vectors(self.words(documents))
        total = 0.0
        for number, block in enumerate(torch.split(queries, BLOCK)):
            scores = maxsim(self.head.vectors(self.words(block)), projected, mask=documents > 0, query_mask=block > 0)
            own = scores.gather(1, number * BLOCK + torch.arange(len(block))[:, None])
            ranks = (scores > own).sum(1).tolist()
            total += sum(1 / math.log2(2 + rank) for rank in ranks if rank < 10)
        return 100 * total / len(queries)

    @torch.no_grad()
    def share(self, examples: Examples) -> float:
        """Return the mean share of its own document's tokens that a query lets gradients through to."""
        shares = []
        for query, document in zip(*examples, strict=True):
            vectors = [self.head.vectors(self.words(x[None])[:, x > 0]) for x in (query, document)]
            shares.append(gradient_share(*vectors))
        return float(torch.stack(shares).mean())


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the six variants from the same word vectors."""
    width, out = numbers["width"], numbers["out_features"]
    task, vectors = retrieval(width, **numbers["words"])
    expansion = numbers["expansion"]
    # The skipping map's weights are taken from the others': an inner place costs in + out, and 2 in + out in a GLU.
    less = {inner: expansion - out / (inner * width + out) for inner in (1, 2)}
    variants: dict[str, dict[str, Any]] = {
        "linear": {},
        "ffn": {"projection": "ffn", "expansion": expansion},
        "ffn_residual": {"projection": "ffn", "expansion": less[1], "residual": True},
        "glu": {"projection": "glu", "expansion": expansion},
        "glu_residual": {"projection": "glu", "expansion": less[2], "residual": True},
        "wide": {"projection": "ffn", "expansion": numbers["wide"]},
    }
    found, share = {}, math.nan
    for index, (name, options) in enumerate(variants.items()):
        tell = part(progress, name, index, len(variants))
        make = partial(retriever, vectors, out, numbers["temperature"], options)
        model: Retriever = trained(make, task, seed, numbers, tell)
        found[name] = model.ndcg(task.validation)
        if name == "linear":
            share = model.share(task.validation)
    gains = {name: score - found["linear"] for name, score in found.items()}
    best = max(gains[name] for name in ("ffn_residual", "glu", "glu_residual"))
    residual = [gains[f"{name}_residual"] - gains[name] for name in ("ffn", "glu")]
    return {
        "best_gain": best,
        "best_gain_each": best,
        "residual_gain": sum(residual) / 2,
        "linear_ndcg": found["linear"],
        **{f"{name}_gain": gain for name, gain in gains.items() if name != "linear"},
        "gradient_share": share,
    }


def retriever(vectors: Tensor, out_features: int, temperature: float, options: dict[str, Any]) -> Retriever:
    """Return a new model."""
    head = MaxSimHead(vectors.shape[1], 1, out_features=out_features, temperature=temperature, **options)
    return Retriever(vectors, head)


def retrieval(width: int, *, query: int, document: int, vocabulary: int, window: int) -> tuple[Given, Tensor]:
    """Return docstrings and code as word numbers, and the words' vectors, of which number 0 is zeros."""
    train, validation = ([each for each in functions() if each.held_out == held_out] for held_out in (False, True))
    texts = [text for each in train for text in (each.doc, (*each.name, *each.body))]
    common = Counter(word for text in texts for word in text).most_common(vocabulary)
    place = {word: number for number, (word, _) in enumerate(common, 1)}

    def examples(split: list[Function]) -> Examples:
        pairs = [(_known(each.doc, place, query), _known((*each.name, *each.body), place, document)) for each in split]
        pairs = [(x, y) for x, y in pairs if x and y]
        return _rows([x for x, _ in pairs], query), _rows([y for _, y in pairs], document)

    numbered = [[place[word] for word in text if word in place] for text in texts]
    return Given(examples(train), examples(validation)), word_vectors(numbered, len(place), width, window)


def _known(text: Sequence[str], place: dict[str, int], limit: int) -> list[int]:
    return [place[word] for word in text if word in place][:limit]


def _rows(texts: list[list[int]], limit: int) -> Tensor:
    return torch.tensor([text + [0] * (limit - len(text)) for text in texts])


def word_vectors(texts: list[list[int]], count: int, width: int, window: int) -> Tensor:
    """Return unit vectors (count + 1, width): singular vectors of the words' positive mutual information."""
    together = torch.zeros(count + 1, count + 1)
    for step in range(1, window + 1):
        near = [(a, b) for text in texts for a, b in zip(text, text[step:], strict=False)]
        first, second = torch.tensor(near, dtype=torch.int64).view(-1, 2).T
        together.index_put_((first, second), torch.ones(len(near)), accumulate=True)
    together = together + together.T
    sums = together.sum(0)
    expected = sums[:, None] * sums / sums.sum()
    information = torch.where(together > 0, (together / expected.clamp(min=1e-9)).log(), 0).clamp(min=0)
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)  # the decomposition starts from random numbers; vectors are the same for every seed
    left, values, _ = torch.svd_lowrank(information, q=min(width, count), niter=4)
    torch.set_rng_state(generator_state)
    vectors = unit(left * values.sqrt())
    vectors[0] = 0  # what rounding leaves of no word
    return vectors
