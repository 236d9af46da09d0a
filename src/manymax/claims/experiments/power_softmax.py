"""A small language model with power-softmax, as trained and as a polynomial (Zimerman et al., 2024)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.approximation import Reciprocal, SiLU
from manymax.claims.experiments.polynomial import other_operations, to_polynomial
from manymax.claims.experiments.training import part, train, validation_loss
from manymax.data.text import Text
from manymax.models.gpt import GPT
from manymax.models.probe import probe

POWERS = (2, 4, 6)
MAIN = 4  # the power of the model that becomes a polynomial


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train softmax and three powers; take the polynomial and the denominators of one."""
    task = Text(length=numbers["length"])
    attentions: dict[Any, Any] = {"softmax": "softmax"}
    for p in POWERS:
        attentions[p] = partial(create_attention, "power_softmax", p=p, eps=numbers["eps"], length_agnostic=True)
    models, losses = {}, {}
    for index, (name, attention) in enumerate(attentions.items()):
        torch.manual_seed(seed)
        model = GPT(256, depth=numbers["depth"], width=numbers["width"], attention=attention)
        train(model, task, seed, numbers, part(progress, str(name), index, len(attentions) + 1))
        models[name], losses[name] = model.eval(), validation_loss(model, task)
    progress(len(attentions) / (len(attentions) + 1), "polynomial")
    perplexity_ratios = {f"p{p}_perplexity_ratio": math.exp(losses[p] - losses["softmax"]) for p in POWERS}
    return {
        **perplexity_ratios,
        **polynomial_metrics(models[MAIN], task, seed, numbers),
        "denominator_range_ratio": range_ratio(models[MAIN], seed, numbers),
        "softmax_perplexity": math.exp(losses["softmax"]),
    }


@torch.no_grad()
def polynomial_metrics(model: GPT, task: Text, seed: int, numbers: Numbers) -> Metrics:
    """Return what becomes of the perplexity in the polynomial, and what the polynomial consists of."""
    calibration, _ = task.batch("train", 0, 8, seed=seed + 1000)
    polynomial = to_polynomial(model, calibration, tolerance=numbers["tolerance"], margin=numbers["margin"])
    tokens, targets = task.batch("validation", 0, numbers["validation_texts"], seed=seed)

    def loss(logits: Tensor) -> float:
        return float(F.cross_entropy(logits.flatten(0, 1).double(), targets.flatten()))

    embedded = model.embedding(tokens).double()
    degrees = {
        kind: max(module.degree for module in polynomial.modules() if isinstance(module, kind))
        for kind in (Reciprocal, SiLU)
    }
    # Out of its range a polynomial grows without bound, and then so does the perplexity.
    ratio = math.exp(min(loss(polynomial.logits(embedded)) - loss(model.logits(tokens)), 700.0))
    return {
        "polynomial_perplexity_ratio": math.inf if math.isnan(ratio) else ratio,
        "other_operations": len(other_operations(polynomial.logits, embedded[:1, :8])),
        "reciprocal_factors": degrees[Reciprocal],
        "silu_degree": degrees[SiLU],
    }


@torch.no_grad()
def range_ratio(model: GPT, seed: int, numbers: Numbers) -> float:
    """Return how much the mean form's denominator varies with the length, over how much the sum form's does."""
    sums, means = [], []
    for length in numbers["lengths"]:
        tokens, _ = Text(length=length).batch("validation", 0, 4, seed=seed)
        powers = torch.stack([layer.scores[..., -1, :] ** MAIN for layer in probe(model, tokens)])
        sums.append(float((numbers["eps"] + powers.sum(-1)).median()))
        means.append(float((numbers["eps"] + powers.mean(-1)).median()))
    return (max(means) / min(means)) / (max(sums) / min(sums))
