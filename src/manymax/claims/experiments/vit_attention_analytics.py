"""Heads of small vision transformers, pruned one at a time and profiled on the grid (Li et al., 2023)."""

from __future__ import annotations

import math
from functools import partial
from statistics import mean

import torch

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import learn, ranks_agree
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.diagnose.vit_heads import SpatialProfile, head_importance, spatial_profile
from manymax.models.vit import ViT

NAMES = ("rank_correlation", "top_quarter", "distance_ratio", "mass_error", "untrained_distance_ratio", "accuracy")


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train a model for each size of patches and look into it."""
    task = Digits()
    try:
        options = task.model_options
    except ImportError as error:
        return dict.fromkeys(NAMES, Untestable(str(error)))
    found: list[dict[str, float]] = []
    for index, patch in enumerate(numbers["patches"]):
        sizes = {"depth": numbers["depth"], "width": numbers["width"], "num_heads": numbers["heads"]}
        make = partial(ViT, **{**options, "patch": patch, **sizes})
        tell = part(progress, f"patches of {patch}", index, len(numbers["patches"]))
        found.append(_one(make, task, seed, numbers, tell))
    metrics: Metrics = {name: mean(one[name] for one in found) for name in NAMES}
    return metrics | {"mass_error": max(one["mass_error"] for one in found)}


def _one(make: partial[ViT], task: Digits, seed: int, numbers: Numbers, progress: Progress) -> dict[str, float]:
    """Return the numbers of one model."""
    images, labels = (x[: numbers["images"]] for x in task.held_out())
    torch.manual_seed(seed)
    before = spatial_profile(make(), images)
    learnt = learn(make, task, seed, numbers, progress)
    importance = head_importance(learnt.model, images, labels)
    after = spatial_profile(learnt.model, images)
    agreement = ranks_agree(importance.loss, importance.probability)
    return {
        "rank_correlation": agreement,
        "top_quarter": top_quarter(importance.probability),
        "distance_ratio": _ratio(after),
        "mass_error": float((after.rings.sum(-1) - 1).abs().max()),
        "untrained_distance_ratio": _ratio(before),
        "accuracy": learnt.quality,
    }


def top_quarter(importance: torch.Tensor) -> float:
    """Return the share of all importance that a quarter of the heads carries, those with the most; gains count as 0."""
    sizes = importance.flatten().clamp(min=0).sort(descending=True).values
    total = float(sizes.sum())
    return float(sizes[: math.ceil(len(sizes) / 4)].sum()) / total if total else 0.0


def _ratio(profile: SpatialProfile) -> float:
    """Return the last layer's mean distance over the first's."""
    return float(profile.distance[-1].mean() / profile.distance[0].mean())
