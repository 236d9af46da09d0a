"""Sigmoid attention against softmax: learning, norms, time, regularity (Ramapuram et al., 2024)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.dense.api import attention
from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.costs import one_thread
from manymax.claims.experiments.jacobian import worst_spectral_norm
from manymax.claims.experiments.training import part, train, validation_loss
from manymax.data.digits import Digits
from manymax.data.text import Text
from manymax.maps.module import Map
from manymax.maps.sigmoid import sigmoid
from manymax.maps.softmax import softmax
from manymax.models.gpt import GPT
from manymax.models.vit import ViT

PARTS = 8  # three trainings on text, three on digits, times, Jacobians


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    metrics = text_metrics(seed, numbers, progress)
    metrics |= digits_metrics(seed, numbers, progress)
    progress(6 / PARTS, "norms and times")
    metrics["output_norm_ratio"] = output_norm_ratio(seed, numbers["norm_length"])
    metrics |= time_metrics(seed, **numbers["time"])
    return metrics | jacobian_metrics(seed, part(progress, "Jacobians", 7, PARTS), **numbers["jacobian"])


def losses(make: Callable[[Any], Any], length: int, task: Any, seed: int, numbers: Numbers) -> tuple[float, ...]:
    """Return the validation losses of softmax, sigmoid with bias -log n, and sigmoid with bias 0.

    Args:
        make: makes the model from a mechanism of attention.
        length: n.
        task: what is learnt.
        seed: of the start and the batches.
        numbers: of the training, with "progress", which names the part that is running.
    """
    found = []
    biases = {"softmax": None, "bias -log n": -math.log(length), "bias 0": 0.0}
    for index, (name, bias) in enumerate(biases.items()):
        torch.manual_seed(seed)
        model = make("softmax" if bias is None else partial(create_attention, "sigmoid", bias=bias))
        start_writers(model)
        train(model, task, seed, numbers, numbers["progress"](name, index))
        found.append(validation_loss(model.eval(), task))
    return tuple(found)


def start_writers(model: Any) -> None:
    """Give the maps that write to the residual stream GPT-2's start: zeros would hide what attention starts with."""
    for block in model.blocks:
        for writer in (block.attention.output, block.mlp.output):
            nn.init.normal_(writer.weight, std=(writer.in_features * 2 * len(model.blocks)) ** -0.5)


def text_metrics(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train on text."""
    task = Text(length=numbers["text"]["length"])

    def make(mechanism: Any) -> GPT:
        return GPT(256, depth=numbers["depth"], width=numbers["width"], attention=mechanism)

    tell = {"progress": lambda name, index: part(progress, f"text, {name}", index, PARTS)}
    softmax, biased, plain = losses(make, task.length, task, seed, {**numbers, **numbers["text"], **tell})
    return {
        "text_loss_ratio": biased / softmax,
        "text_loss_ratio_without_bias": plain / max(biased, softmax),
        "softmax_text_loss": softmax,
    }


def digits_metrics(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train on images, if scikit-learn is there to give them."""
    names = ("digits_loss_ratio", "digits_loss_ratio_without_bias", "softmax_digits_loss")
    task = Digits()
    try:
        options = {**task.model_options, "patch": 1}
    except ImportError as error:
        return dict.fromkeys(names, Untestable(str(error)))

    def make(mechanism: Any) -> ViT:
        return ViT(**options, depth=numbers["depth"], width=numbers["width"], attention=mechanism)

    _, height, width = options["image"]
    tell = {"progress": lambda name, index: part(progress, f"digits, {name}", 3 + index, PARTS)}
    softmax, biased, plain = losses(make, height * width, task, seed, {**numbers, **numbers["digits"], **tell})
    return dict(zip(names, (biased / softmax, plain / max(biased, softmax), softmax), strict=True))


def output_norm_ratio(seed: int, length: int) -> float:
    """Return the norm of attention's output with bias 0 over that with -log n, for standard normal inputs."""
    query, key, value = torch.randn(3, 1, 4, length, 32, generator=torch.Generator().manual_seed(seed)).unbind()
    norms = [
        float(attention(query, key, value, map=Map("sigmoid", bias=bias)).norm()) for bias in (0.0, -math.log(length))
    ]
    return norms[0] / norms[1]


@one_thread()
@torch.no_grad()
def time_metrics(seed: int, *, heads: int, length: int, width: int, rounds: int) -> Metrics:
    """Time tiled attention, softmax, sigmoid and softmax again in turn; the medians over rounds of paired ratios."""
    query, key, value = torch.randn(3, 1, heads, length, width, generator=torch.Generator().manual_seed(seed)).unbind()
    maps = [Map("softmax"), Map("sigmoid", bias=-math.log(length)), Map("softmax")]
    ratios, noise = [], []
    for number in range(rounds + 1):
        seconds = []
        for each in maps if number % 2 else reversed(maps):
            begun = time.perf_counter()
            attention(query, key, value, map=each, backend="tiled")
            seconds.append(time.perf_counter() - begun)
        if number:  # the first round warms up
            ratios.append((seconds[0] + seconds[2]) / 2 / seconds[1])
            noise.append(seconds[0] / seconds[2])
    return {"time_ratio": median(ratios), "time_noise": median(noise)}


def jacobian_metrics(
    seed: int, progress: Progress, *, tokens: int, width: int, radii: list[float], starts: int, steps: int
) -> Metrics:
    """Compare the largest spectral norms that are found in balls of growing radius."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q for _ in range(3)]
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": softmax,
        "sigmoid": partial(sigmoid, bias=-math.log(tokens)),
    }
    ratios = []
    for number, radius in enumerate(radii):
        progress(number / len(radii), f"radius {radius}")
        start = torch.randn(starts, tokens, width, generator=generator, dtype=torch.float64) * radius
        found = {
            name: worst_spectral_norm(partial(_attend, maps=maps, kind=kind), start, radius, steps)
            for name, kind in kinds.items()
        }
        ratios.append(found["sigmoid"] / found["softmax"])
    return {
        "jacobian_ratio": max(ratios),
        "jacobian_ratio_smallest_radius": ratios[0],
        "jacobian_ratio_largest_radius": ratios[-1],
    }


def _attend(x: Tensor, maps: Sequence[Tensor], kind: Callable[[Tensor], Tensor]) -> Tensor:
    query, key, value = (x @ each for each in maps)
    return kind(query @ key.transpose(-2, -1) * x.shape[-1] ** -0.5) @ value
