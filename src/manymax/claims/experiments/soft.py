"""SOFT: time, Newton's inverse, the kernel through landmarks, digits (Lu et al., 2022)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.attention.linear.newton import largest_sum, newton_inverse
from manymax.attention.linear.soft import RIDGE, gaussian, means
from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import on_digits, seen
from manymax.claims.experiments.costs import attending, time_slope
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits

GRID = (8, 8)  # of the digits' pixels


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    soft = partial(create_attention, "soft", num_landmarks=numbers["landmarks"])
    images = on_digits({"softmax": "softmax", "soft": soft}, seed, numbers, part(progress, "digits", 0, 2))
    metrics: Metrics
    if isinstance(images, Untestable):
        names = ("points_below_softmax", "inverse_error", "error_growth", "backward_difference", "softmax_accuracy")
        metrics = dict.fromkeys((*names, "error_of_most"), images)
    else:
        tokens = Digits().held_out()[0][: numbers["probed"]]
        metrics = {
            "points_below_softmax": 100 * (images["softmax"].quality - images["soft"].quality),
            "softmax_accuracy": 100 * images["softmax"].quality,
            **inverses(images["soft"].model, tokens, seed),
            **kernels(images["soft"].model, tokens, numbers["counts"]),
        }
    progress(0.5, "times")
    return metrics | times(seed, **numbers["time"])


@torch.no_grad()
def matrices(model: Any, images: Tensor) -> list[tuple[Any, Tensor]]:
    """Return each SOFT of a trained model with the tokens (B, H, N, D) that are its queries and keys, scaled."""
    mechanisms = [block.attention.mechanism for block in model.blocks]
    calls = seen(model, images)
    return [
        (each, 0.5 * (query + key) * query.shape[3] ** -0.25)
        for each, (query, key) in zip(mechanisms, calls, strict=True)
    ]


def inverses(model: Any, images: Tensor, seed: int) -> Metrics:
    """Return how far Newton's inverse and its gradient are from exact ones, for the kernels of trained landmarks."""
    errors, differences = [], []
    generator = torch.Generator().manual_seed(seed)
    for mechanism, tokens in matrices(model, images):
        kernel = landmark_kernel(mechanism, tokens, mechanism.num_landmarks)
        ridge = RIDGE * torch.eye(kernel.shape[-1])
        exact = torch.linalg.pinv((kernel + ridge).double(), hermitian=True)
        found = mechanism.inverse(kernel)
        errors.append(float((found - exact).norm() / exact.norm()))
        matrix = (kernel + ridge).requires_grad_()
        weights = torch.randn(kernel.shape, generator=generator)
        size = 1.8 / largest_sum(kernel) ** 2
        ours, theirs = (
            torch.autograd.grad((inverse * weights).sum(), matrix)[0]
            for inverse in (newton_inverse(matrix, size, mechanism.iterations), torch.linalg.inv(matrix))
        )
        differences.append(float((ours - theirs).abs().max() / theirs.abs().max()))
    return {"inverse_error": max(errors), "backward_difference": max(differences)}


@torch.no_grad()
def landmark_kernel(mechanism: Any, tokens: Tensor, count: int) -> Tensor:
    """Return the kernel of the landmarks that a trained SOFT makes of tokens."""
    marks = landmarks(mechanism, tokens, count)
    return gaussian(marks, marks)


def landmarks(mechanism: Any, tokens: Tensor, count: int) -> Tensor:
    """Return landmarks, as many as the largest square up to `count`."""
    raw, _ = means(tokens, None, GRID, count)
    return F.gelu(mechanism.norm(raw))


@torch.no_grad()
def kernels(model: Any, images: Tensor, counts: list[int]) -> Metrics:
    """Return how the error of the kernel of trained tokens through landmarks goes with their number."""
    growth, last = [], []
    for mechanism, tokens in matrices(model, images):
        exact = gaussian(tokens, tokens)
        errors = []
        for count in counts:
            marks = landmarks(mechanism, tokens, count)
            thin = gaussian(tokens, marks)
            found = thin @ mechanism.inverse(gaussian(marks, marks)) @ thin.transpose(2, 3)
            errors.append(float((found - exact).norm() / exact.norm()))
        growth.append(max(now / before for before, now in pairwise(errors)))
        last.append(errors[-1])
    return {"error_growth": max(growth), "error_of_most": max(last)}


def times(seed: int, *, width: int, landmarks: int, lengths: list[int], rounds: int, seconds: float) -> Metrics:
    """Return how times grow with the tokens, as powers."""
    soft = create_attention("soft", head_dim=width, num_heads=1, num_landmarks=landmarks)
    found = [
        time_slope(attending(each, 1, width, seed), lengths, rounds, seconds)
        for each in (soft, partial(attention, backend="sdpa"))
    ]
    return {"soft_time_slope": found[0], "softmax_time_slope": found[1]}
