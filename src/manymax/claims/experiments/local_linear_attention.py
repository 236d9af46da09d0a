"""Local constant, local linear and global linear fits of streams that change (Zuo et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.attention.dense.local_linear import local_linear
from manymax.attention.linear.recurrence import linear_attention
from manymax.attention.module import create_attention
from manymax.attention.recurrent.regression import least_squares
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.swap import learn
from manymax.claims.experiments.training import part
from manymax.data.recall import Recall
from manymax.models.evaluate import evaluate

Stream = tuple[Tensor, Tensor]  # keys and values, (B, 1, N, d)
Fit = Callable[[Tensor, Tensor, Tensor], Tensor]
SKIPPED = 64  # pairs before errors count, of 512
SCALES = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6)  # of scores q · k, whose largest is d
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure errors on streams, limits, and recall."""
    progress(0.0, "streams")
    chosen, tested = (streams(2 * seed + which, numbers) for which in (0, 1))
    skipped = min(SKIPPED, numbers["segment"])
    errors = {name: best_error(fits, chosen, tested, skipped) for name, fits in candidates(numbers["dims"]).items()}
    linear = min(errors["linear attention"], errors["ridge regression"])
    progress(0.3, "limits")
    metrics: Metrics = {
        "softmax_error_ratio": errors["local linear"] / errors["local constant"],
        "linear_error_ratio": errors["local linear"] / linear,
        "local_linear_error": errors["local linear"],
    }
    metrics |= limits(seed, numbers["error_length"], numbers["dims"])
    names = {"softmax": "softmax", "local_linear": "local-linear-attention"}
    for index, (name, mechanism) in enumerate(names.items()):
        task = Recall(validation=256)
        model = learn(task, mechanism, seed, numbers["recall"], part(progress, f"recall, {name}", 1 + index, 3))
        metrics[f"{name}_recall"] = evaluate(model, task)
    return metrics


def streams(seed: int, numbers: Numbers) -> Stream:
    """Return pairs whose segments each have a centre and a linear map of their own; keys have length sqrt(d)."""
    generator = torch.Generator().manual_seed(seed)
    dims, segments, length = numbers["dims"], numbers["segments"], numbers["segment"]
    shape = (numbers["streams"], 1, segments, length, dims)
    centre = 2 * torch.randn(numbers["streams"], 1, segments, 1, dims, generator=generator)
    key = F.normalize(centre + torch.randn(shape, generator=generator), dim=-1) * dims**0.5
    slope = torch.randn(numbers["streams"], 1, segments, dims, dims, generator=generator) / dims**0.5
    value = key @ slope + numbers["noise"] * torch.randn(shape, generator=generator)
    return key.flatten(2, 3), value.flatten(2, 3)


def candidates(dims: int) -> dict[str, list[Fit]]:
    """Return each method at all points of its grid: what queries get from the keys and values up to their own place."""

    def constant(scale: float) -> Fit:
        return lambda query, key, value: attention(query, key, value, is_causal=True, scale=scale)

    def line(scale: float, ridge: float) -> Fit:
        beside = torch.full((1, 1, 1), ridge * math.exp(scale * dims))  # weights of near keys are about exp(scale d)

        def predict(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen = torch.ones(1, 1, key.shape[2], key.shape[2], dtype=torch.bool).tril()
            return local_linear(query, key, value, seen, scale=scale, ridge=beside)

        return predict

    def global_map(ridge: float) -> Fit:
        def predict(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            gram = (ridge * torch.eye(dims)).expand(*key.shape[:2], dims, dims)
            return least_squares(query, key, value, None, gram, None)[0]

        return predict

    def linear(scale: float) -> Fit:
        def predict(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            counts = torch.arange(1, key.shape[2] + 1)[:, None]
            return scale * linear_attention(query, key, value)[0] / counts

        return predict

    return {
        "local constant": [constant(scale) for scale in SCALES],
        "local linear": [line(scale, ridge) for scale in SCALES for ridge in RIDGES],
        "ridge regression": [global_map(ridge) for ridge in RIDGES],
        "linear attention": [linear(scale) for scale in (0.01, 0.03, 0.1, 0.3, 1.0)],
    }


@torch.no_grad()
def best_error(fits: list[Fit], chosen: Stream, tested: Stream, skipped: int) -> float:
    """Return the mean squared error of predicting each next value, by the fit that is best on another stream."""

    def error(fit: Fit, stream: Stream) -> float:
        key, value = stream
        out = fit(key[:, :, 1:], key[:, :, :-1], value[:, :, :-1])
        return float((out - value[:, :, 1:])[:, :, skipped - 1 :].square().mean())

    return error(min(fits, key=lambda fit: error(fit, chosen)), tested)


@torch.no_grad()
def limits(seed: int, length: int, dims: int) -> Metrics:
    """Return the largest differences from softmax, from ridge regression and between the solvers."""
    drawn = torch.randn(3, 1, 2, length, dims, generator=torch.Generator().manual_seed(seed)).unbind()
    query, key, value = drawn[0] / dims**0.5, drawn[1] / dims**0.5, drawn[2]
    sizes = {"head_dim": dims, "num_heads": 2}

    def local(query: Tensor = query, key: Tensor = key, **options: Any) -> Tensor:
        out: Tensor = create_attention("local-linear-attention", **sizes, **options)(query, key, value, is_causal=True)
        return out

    softmax = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    wide = create_attention("local-linear-attention", **sizes, scale=1e-6)(query, key, value)
    return {
        "ridge_limit_error": float((local(ridge=1e6) - softmax).abs().max()),
        "bandwidth_limit_error": float((wide - ridge_regression(query, key, value)).abs().max()),
        "solver_error": float((local() - local(solver="exact")).abs().max()),
        "long_keys_solver_error": float((local(*drawn[:2]) - local(*drawn[:2], solver="exact")).abs().max()),
    }


def ridge_regression(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return affine ridge regression on all keys, ridge 1 on the slope about the query, by normal equations."""
    query, key, value = query.double(), key.double(), value.double()
    outs = []
    for i in range(query.shape[2]):
        apart = key - query[:, :, i : i + 1]
        design = torch.cat([torch.ones_like(apart[..., :1]), apart], -1)
        penalty = torch.eye(design.shape[-1], dtype=design.dtype)
        penalty[0, 0] = 0
        right = design.transpose(2, 3) @ value
        outs.append(torch.linalg.solve(design.transpose(2, 3) @ design + penalty, right)[:, :, 0])
    return torch.stack(outs, 2)
