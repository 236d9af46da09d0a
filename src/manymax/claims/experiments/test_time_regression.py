"""Regression at test time: covariance of keys, recall, local fits, norms of keys (Wang et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.attention.dense.local_linear import local_linear
from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.swap import learn
from manymax.claims.experiments.training import part
from manymax.data.recall import Recall
from manymax.models.evaluate import evaluate

NAME = "test-time-regression"
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
RIDGES = (1e-3, 1e-2, 1e-1)
Fit = Callable[[Tensor, Tensor, Tensor], Tensor]


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    progress(0.0, "regression")
    metrics: Metrics = {
        "correlated_error_ratio": covariance_ratio(seed, numbers, numbers["condition"]),
        "orthonormal_error_change": abs(orthonormal_ratio(seed, numbers) - 1),
        "solve_error": solve_error(seed, numbers["dims"]),
        "local_error_ratio": local_ratio(seed, numbers["points"], numbers["repeats"]),
        "norm_error_ratio": norm_ratio(seed, numbers["points"], numbers["repeats"], numbers["dims"]),
    }
    shares = []
    for index, solver in enumerate(("exact", "no-covariance")):
        task = Recall()
        make = partial(create_attention, NAME, solver=solver, shift_keys=3)
        model = learn(task, make, seed, numbers, part(progress, f"recall, {solver}", 1 + index, 3))
        shares.append(evaluate(model, task))
    return metrics | {"recall": shares[0], "linear_recall": shares[1], "recall_gain": shares[0] - shares[1]}


def mechanism(dims: int, **options: Any) -> Any:
    """Return one head without scaling of queries and keys."""
    return create_attention(NAME, head_dim=dims, num_heads=1, qk_norm=False, **options)


@torch.no_grad()
def covariance_ratio(seed: int, numbers: Numbers, condition: float) -> float:
    """Return the error of linear attention over that of exact regression, keys of a covariance of this condition."""
    generator = torch.Generator().manual_seed(seed)
    dims, count = numbers["dims"], numbers["keys"]
    turn = torch.linalg.qr(torch.randn(dims, dims, generator=generator)).Q
    spread = torch.logspace(0, -math.log10(condition), dims).sqrt() * turn.T
    key = torch.randn(1, 1, count, dims, generator=generator) @ (torch.diag(spread.norm(dim=1)) @ turn)
    slope = torch.randn(dims, dims, generator=generator)
    value = key @ slope + numbers["noise"] * torch.randn(1, 1, count, dims, generator=generator)
    query = torch.randn(1, 1, count, dims, generator=generator)
    scaled = query / (key.square().mean() * count)
    errors = [
        float((mechanism(dims, solver=solver, ridge=1e-3)(q, key, value) - query @ slope).square().mean())
        for solver, q in (("no-covariance", scaled), ("exact", query))
    ]
    return errors[0] / errors[1]


@torch.no_grad()
def orthonormal_ratio(seed: int, numbers: Numbers) -> float:
    """Return the same ratio for as many orthonormal keys as dims."""
    generator = torch.Generator().manual_seed(seed)
    dims = numbers["dims"]
    key = torch.linalg.qr(torch.randn(1, 1, dims, dims, generator=generator)).Q
    slope = torch.randn(dims, dims, generator=generator)
    value = key @ slope + numbers["noise"] * torch.randn(1, 1, dims, dims, generator=generator)
    query = torch.randn(1, 1, 64, dims, generator=generator)
    errors = [
        float((mechanism(dims, **options)(query, key, value) - query @ slope).square().mean())
        for options in ({"solver": "no-covariance"}, {"ridge": 1e-4})
    ]
    return errors[0] / errors[1]


@torch.no_grad()
def solve_error(seed: int, dims: int) -> float:
    """Return the largest relative error of the recurrences in float32 against direct solves in float64."""
    query, key, value = torch.randn(3, 1, 1, 64, dims, generator=torch.Generator().manual_seed(seed)).unbind()
    key = F.normalize(key, dim=-1)
    torch.manual_seed(seed)
    errors = []
    for options in ({"form": "woodbury"}, {"form": "chunked"}, {"solver": "gradient"}, {"solver": "no-covariance"}):
        layer = mechanism(dims, forgetting=True, **options)
        found = layer(query, key, value, is_causal=True).double()
        expected = direct(layer, *(x.double()[0, 0] for x in (query, key, value)))
        errors.append(float((found[0, 0] - expected).abs().max() / expected.abs().max()))
    return max(errors)


def direct(layer: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what a layer says by its definition: a weighted solve, a weighted sum, or one gradient step a token."""
    decay = torch.sigmoid(value @ layer.forget.weight.double()[0] + layer.forget.bias.double()[0])[:, 0]
    outs, eye = [], torch.eye(key.shape[1], dtype=key.dtype)
    best = torch.zeros_like(eye)
    for t in range(len(key)):
        weight = decay[1 : t + 1].flip(0).cumprod(0).flip(0)
        seen = torch.cat([weight, weight.new_ones(1)])[:, None] * key[: t + 1]
        if layer.solver == "gradient":
            rate = torch.sigmoid(value[t] @ layer.rate.weight.double()[0, :, 0] + layer.rate.bias.double()[0, 0, 0])
            best = decay[t] * best
            best = best - rate * torch.outer(best @ key[t] - value[t], key[t])
        elif layer.solver == "exact":
            ridge = layer.log_ridge.double().exp()[0] * decay[: t + 1].prod() * eye
            best = torch.linalg.solve(seen.T @ key[: t + 1] + ridge, seen.T @ value[: t + 1]).T
        else:
            best = value[: t + 1].T @ seen
        outs.append(best @ query[t])
    return torch.stack(outs)


def best_error(fits: Sequence[Fit], draws: list[tuple[Tensor, ...]]) -> float:
    """Return the mean squared error on the second draw of the fit that is best on the first."""

    def error(fit: Fit, which: int) -> float:
        query, key, value, expected = draws[which]
        return float((fit(query, key, value) - expected).square().mean())

    return error(min(fits, key=lambda fit: error(fit, 0)), 1)


@torch.no_grad()
def local_ratio(seed: int, points: int, repeats: int) -> float:
    """Return the error of local lines over that of local constants at the edges of a square, lifted to a sphere."""

    def draw(which: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(2 * seed + which)
        place = 2 * torch.rand(repeats, 1, points, 2, generator=generator) - 1
        asked = 2 * torch.rand(repeats, 1, points, 2, generator=generator) - 1
        asked[..., 0] = asked[..., 0].sign()
        return lifted(asked), lifted(place), smooth(place), smooth(asked)

    def lifted(x: Tensor) -> Tensor:
        return F.normalize(torch.cat([x, torch.full_like(x[..., :1], 2.0)], -1), dim=-1)

    def smooth(x: Tensor) -> Tensor:
        return torch.stack([(2 * x[..., 0] + x[..., 1]).sin(), x[..., 0] * x[..., 1].exp()], -1)

    draws = [draw(which) for which in (0, 1)]
    seen = torch.ones(1, 1, 1, points, dtype=torch.bool)

    def line(scale: float, ridge: float) -> Fit:
        beside = torch.full((1, 1, 1), ridge * math.exp(min(scale, 80.0)))  # near keys weigh about exp(scale)
        return partial(local_linear, seen=seen, scale=scale, ridge=beside)

    constants = [partial(attention, scale=scale) for scale in SCALES]
    lines = [line(scale, ridge) for scale in SCALES for ridge in RIDGES if scale <= 100]
    return best_error(lines, draws) / best_error(constants, draws)


@torch.no_grad()
def norm_ratio(seed: int, points: int, repeats: int, dims: int) -> float:
    """Return the error with keys and queries of length 1 over that without, lengths of keys log-normal."""

    def draw(which: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(2 * seed + which)
        key, query = torch.randn(2, repeats, 1, points, dims, generator=generator).unbind()
        key, query = F.normalize(key, dim=-1), F.normalize(query, dim=-1)
        slope = torch.randn(dims, 2, generator=torch.Generator().manual_seed(seed))
        length = torch.randn(repeats, 1, points, 1, generator=generator).exp()
        return query, key * length, (key @ slope).sin(), (query @ slope).sin()

    draws = [draw(which) for which in (0, 1)]
    plain = [partial(attention, scale=scale) for scale in SCALES]

    def normal(scale: float) -> Fit:
        return lambda query, key, value: attention(query, F.normalize(key, dim=-1), value, scale=scale)

    return best_error([normal(scale) for scale in SCALES], draws) / best_error(plain, draws)
