"""The Galerkin Transformer on Burgers' equation and Darcy flow: errors, time, other grids (Cao, 2021)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.burgers import Burgers
from manymax.claims.experiments.costs import attending, one_thread
from manymax.claims.experiments.darcy import Darcy
from manymax.claims.experiments.timing import best_times
from manymax.claims.experiments.training import part, trained
from manymax.data.task import Task
from manymax.models.galerkin_transformer import GalerkinTransformer
from manymax.models.operators import relative_loss

NAME = "galerkin-transformer"
KINDS = ("softmax", "galerkin", "fourier")


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    coarse, fine = numbers["points"]
    circle = Burgers(points=coarse, **numbers["burgers"])
    finer = replace(circle, points=fine, count=1)  # for testing alone
    square = Darcy(**numbers["darcy"])
    errors, transfers, flows = {}, {}, {}
    for index, kind in enumerate(KINDS):
        model = learnt(circle, kind, seed, numbers["circle"], part(progress, f"Burgers, {kind}", index, 5))
        errors[kind] = error(model, circle)
        transfers[kind] = error(model, finer) / errors[kind]
    for index, kind in enumerate(KINDS[:2], start=len(KINDS)):
        model = learnt(square, kind, seed, numbers["square"], part(progress, f"Darcy, {kind}", index, 5))
        flows[kind] = error(model, square)
    return {
        "error_ratio": errors["galerkin"] / errors["softmax"],
        "darcy_error_ratio": flows["galerkin"] / flows["softmax"],
        "time_ratio": time_ratio(seed, **numbers["time"]),
        "finer_error_ratio": transfers["galerkin"],
        "order_difference": order_difference(seed, **numbers["forms"]),
        "softmax_error": errors["softmax"],
        "darcy_softmax_error": flows["softmax"],
        "fourier_error_ratio": errors["fourier"] / errors["softmax"],
        "softmax_finer_error_ratio": transfers["softmax"],
    }


def learnt(task: Task, kind: str, seed: int, numbers: Numbers, progress: Progress) -> GalerkinTransformer:
    """Return a model with attention of a kind, trained on a task under the seed; "model" has its options."""
    make = partial(GalerkinTransformer, **numbers["model"], kind=kind)
    model: GalerkinTransformer = trained(make, task, seed, numbers, progress)
    return model


@torch.no_grad()
def error(model: GalerkinTransformer, task: Task) -> float:
    """Return the mean relative error in the L2 norm over the functions for testing."""
    values, wanted = task.held_out()
    return float(relative_loss(model.functions(values), wanted))


@torch.no_grad()
def time_ratio(seed: int, *, tokens: int, width: int, rounds: int, seconds: float) -> float:
    """Return the time of softmax over that of Galerkin attention, forward, one head, one thread."""
    modules = [create_attention(NAME, head_dim=width, num_heads=1, kind=kind) for kind in ("softmax", "galerkin")]
    with one_thread():
        softmax, galerkin = best_times([attending(m, 1, width, seed)(tokens) for m in modules], rounds, seconds)
    return softmax / galerkin


@torch.no_grad()
def order_difference(seed: int, *, tokens: int, width: int) -> float:
    """Return the largest difference between products from the right in float32 and from the left in float64."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 1, 1, tokens, width, generator=generator).unbind()
    module = create_attention(NAME, head_dim=width, num_heads=1)
    key64, value64 = (F.layer_norm(x.double(), (width,)) for x in (key, value))
    expected = (query.double() @ key64.transpose(2, 3)) @ value64 / tokens
    return float((module(query, key, value) - expected).abs().max())
