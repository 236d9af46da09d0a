"""Flowformer: the linear form, conserved flows, ListOps, evenness (Wu et al., 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.contests import on_text, row_entropy, rows, seen
from manymax.claims.experiments.costs import attending, flops, slope
from manymax.claims.experiments.training import part
from manymax.data.listops import ListOps

EPS = 1e-6
CONTENDERS = {"softmax": "softmax", "linear": "linear", "flow": "flowformer"}


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    task = ListOps()
    runs = on_text(CONTENDERS, task, seed, numbers, part(progress, "ListOps", 0, 1))
    points = {name: 100 * learnt.quality for name, learnt in runs.items()}
    tokens = task.held_out()[0][: numbers["probed"]]
    entropies = {
        name: evenness(kind, runs[name].model, tokens) for name, kind in CONTENDERS.items() if name != "softmax"
    }
    return {
        "points_above_linear": points["flow"] - points["linear"],
        "points_above_softmax": points["flow"] - points["softmax"],
        "linear_accuracy": points["linear"],
        "entropy_ratio": entropies["flow"] / entropies["linear"],
        **forms(seed, **numbers["forms"]),
        "flop_slope": flop_slope(seed, **numbers["flops"]),
    }


def evenness(name: str, model: Any, tokens: Tensor) -> float:
    """Return the mean entropy of rows of weights of a trained model, in which all see all."""
    found = []
    for query, key in seen(model, tokens):
        module = create_attention(name, head_dim=query.shape[3], num_heads=query.shape[1])
        found.append(row_entropy(rows(module, query, key)))
    return sum(found) / len(found)


def forms(seed: int, *, queries: int, keys: int, width: int) -> Metrics:
    """Return how far the linear form is from all pairs, and what flows into the queries from their number."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 1, queries, width, generator=generator)
    key, value = torch.randn(2, 1, 1, keys, width, generator=generator).unbind()
    module = create_attention("flowformer", head_dim=width, num_heads=1)
    expected, into = all_pairs(query.double(), key.double(), value.double())
    return {
        "form_difference": float((module(query, key, value) - expected).abs().max()),
        "flow_error": abs(into - queries),
    }


def all_pairs(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, float]:
    """Return the output from the matrix of all pairs, and what flows into all queries together."""
    q, k = query.sigmoid(), key.sigmoid()
    n, m = q.shape[2], k.shape[2]

    def flows(x: Tensor, many: Tensor) -> Tensor:
        products = (x + EPS) @ many.transpose(2, 3)
        return products.sum(-1, keepdim=True) + EPS * (x + EPS).sum(-1, keepdim=True)

    incoming, outgoing = flows(q, k), flows(k, q)
    competition = torch.softmax(flows(k, q / incoming).clamp(-1, 1), 2) * m
    weights = (q @ k.transpose(2, 3) / incoming) * competition.transpose(2, 3)
    out = torch.sigmoid(flows(q, k / outgoing) * (n / m)) * (weights @ value)
    return out, float((q / incoming @ k.transpose(2, 3)).sum())


def flop_slope(seed: int, *, width: int, lengths: list[int]) -> float:
    """Return how the operations of matrix products grow with the tokens, as a power."""
    module = create_attention("flowformer", head_dim=width, num_heads=1)
    work = attending(module, 1, width, seed)
    return slope(lengths, [flops(work(n)) for n in lengths])
