"""L2ViT: concentration, bounded denominators, alternation with windows (Zheng, 2025)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manymax.attention.module import create_attention
from manymax.attention.weights import attention_weights, local_mass, row_entropy
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import GradientNorms, Learnt, learn, seen
from manymax.claims.experiments.costs import mechanism_slope
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.models.l2vit import L2ViT

FACTOR, WINDOW = 3.0, 20  # a spike is a gradient above 3 times the median of the 20 steps before
NEAR = 3  # side of the window that counts as near
PLAIN = partial(create_attention, "l2vit", least=0.0)


def kinds(window: int, local: int) -> dict[str, dict[str, Any]]:
    """Return the options of each kind of model."""
    return {
        "softmax": {"window": 0, "local": 0, "attention": "softmax"},
        "linear": {"window": 0, "local": 0, "attention": PLAIN},
        "bound": {"window": 0, "local": 0, "attention": "l2vit"},
        "module": {"window": 0, "local": local, "attention": PLAIN},
        "l2vit": {"window": window, "local": local, "attention": "l2vit"},
    }


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    task = Digits(side=numbers["side"])
    metrics: Metrics
    try:
        options = dict(task.model_options)
    except ImportError as error:
        names = ("entropy_ratio", "points_of_module", "points_above_softmax", "spikes_of_plain_division")
        others = ("softmax_accuracy", "spikes_with_bound", "points_of_bound")
        masses = ("near_mass_of_softmax", "near_mass_of_linear")
        metrics = dict.fromkeys((*names, *others, *masses), Untestable(str(error)))
    else:
        metrics = learning(options, task, seed, numbers, progress)
    progress(0.9, "times")
    return metrics | {"slope_distance": abs(mechanism_slope("l2vit", seed, numbers["time"]) - 1)}


def learning(options: dict[str, Any], task: Digits, seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train each kind of model; return accuracies, concentration and spikes."""
    options |= {name: numbers[name] for name in ("patch", "depths", "widths")}

    def build(kind: dict[str, Any], records: list[GradientNorms]) -> L2ViT:
        model = L2ViT(**options, **kind)
        records.append(GradientNorms(model))
        return model

    runs: dict[str, Learnt] = {}
    spikes: dict[str, int] = {}
    models = kinds(numbers["window"], numbers["local"])
    for index, (name, kind) in enumerate(models.items()):
        records: list[GradientNorms] = []
        tell = part(progress, name, index, len(models) + 1)
        runs[name] = learn(partial(build, kind, records), task, seed, numbers, tell)
        spikes[name] = records[0].spikes(FACTOR, WINDOW)
    points = {name: 100 * learnt.quality for name, learnt in runs.items()}
    images = task.held_out()[0][: numbers["probed"]]
    found = {name: concentration(runs[name], models[name]["attention"], images) for name in ("softmax", "linear")}
    return {
        "entropy_ratio": found["linear"]["entropy"] / found["softmax"]["entropy"],
        "points_of_module": points["module"] - points["linear"],
        "points_above_softmax": points["l2vit"] - points["softmax"],
        "spikes_of_plain_division": spikes["linear"] - spikes["bound"],
        "softmax_accuracy": points["softmax"],
        "spikes_with_bound": spikes["bound"],
        "points_of_bound": points["bound"] - points["linear"],
        **{f"near_mass_of_{name}": each["near mass"] for name, each in found.items()},
    }


def concentration(learnt: Learnt, attention: Any, images: Tensor) -> Mapping[str, float]:
    """Return the mean entropy of a trained model's rows of weights, and the mean share of a place and the 8 around."""
    entropies, masses = [], []
    for query, key in seen(learnt.model, images):
        sizes = {"head_dim": query.shape[3], "num_heads": query.shape[1]}
        mechanism = create_attention(attention, **sizes) if isinstance(attention, str) else attention(**sizes)
        weights = attention_weights(mechanism, query, key)
        side = math.isqrt(query.shape[2])
        entropies.append(row_entropy(weights).nanmean())
        masses.append(local_mass(weights, NEAR, (side, side)).nanmean())
    return {"entropy": float(torch.stack(entropies).mean()), "near mass": float(torch.stack(masses).mean())}
