"""Decoding with one maximum for all chunks of keys, and flat products (Hong et al., 2023)."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.flat_products import flat_metrics
from manymax.claims.experiments.recorded import Heads, recorded, trained
from manymax.claims.experiments.studies import attend
from manymax.claims.experiments.timing import best_times
from manymax.data.text import Text

WIDEST = 60.0  # |a| and b beyond this: e^60 times 10^5 keys is far from float32's largest number
CHUNK = 256  # keys, where time does not matter


class Preset(NamedTuple):
    """The unified maximum: scores x are expected with a < x - phi < b."""

    phi: float
    a: float
    b: float


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Calibrate on a small language model, decode held-out text, mislead the preset, time both parts."""
    model = trained(seed, numbers, lambda share, doing: progress(0.5 * share, doing))
    text = Text(length=numbers["length"])
    progress(0.5, "calibration")
    shown, _ = text.batch("train", 0, numbers["calibration_texts"], seed=seed + 1000)
    presets = [calibrated(heads, numbers["margin"]) for heads in recorded(model, shown)]
    progress(0.55, "held-out text")
    tokens, _ = text.batch("validation", 0, numbers["texts"], seed=seed)
    metrics = held_out_metrics(recorded(model, tokens), presets, numbers["positions"])
    progress(0.6, "misleading presets")
    metrics |= misled_metrics(torch.Generator().manual_seed(seed), numbers["misled_keys"])
    metrics |= time_metrics(seed, numbers, progress)
    progress(0.95, "flat products")
    return metrics | flat_metrics(seed, **numbers["flat"])


def calibrated(heads: Heads, margin: float) -> Preset | None:
    """Return the middle of a layer's scores and their range widened by a factor; None if it is too wide for float32."""
    query, key, _ = heads
    visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    scores = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5)[..., visible]
    low, high = float(scores.min()), float(scores.max())
    reach = margin * (high - low) / 2
    return Preset((low + high) / 2, -reach, reach) if reach < WIDEST else None


def unified(heads: Heads, preset: Preset) -> tuple[Tensor, Tensor]:
    """Return the output, and 1 for each row (B, H, Nq) that was computed again since a score was out of range."""
    query, key, value = heads
    again = torch.empty(query.shape[:3])
    return attend("unified_decode", query, key, value, CHUNK, *preset, decode=True, stats=again), again


def exact_decode(heads: Heads) -> Tensor:
    """Return softmax attention in float64, without causality; groups of queries' heads share keys and values."""
    query, key, value = (x.double().repeat_interleave(heads[0].shape[1] // x.shape[1], 1) for x in heads)
    return torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, -1) @ value


def held_out_metrics(layers: list[Heads], presets: list[Preset | None], positions: int) -> Metrics:
    """Decode the last token of each of `positions` beginnings of the texts, in all layers.

    A layer whose scores reach too far does not use the preset; it counts as disabled and not in the rates.
    """
    errors, again = [0.0], []
    for (query, key, value), preset in zip(layers, presets, strict=True):
        if preset is None:
            continue
        for end in torch.linspace(1, query.shape[2], positions).int().tolist():
            heads = (query[:, :, end - 1 : end], key[:, :, :end], value[:, :, :end])
            out, flags = unified(heads, preset)
            errors.append(float((out - exact_decode(heads)).abs().max()))
            again.append(flags.flatten())
    return {
        "fallback_rate": float(torch.cat(again).mean()) if again else float("nan"),
        "largest_error": max(errors),
        "layers_disabled": float(presets.count(None)),
    }


def misled_metrics(generator: torch.Generator, keys: int) -> Metrics:
    """Decode scores that a preset does not expect; every row has to be computed again, and right.

    Args:
        generator: of queries, keys and values.
        keys: how many.
    """
    query = torch.randn(4, 8, 1, 64, generator=generator)
    key, value = torch.randn(2, 4, 2, keys, 64, generator=generator).unbind()
    long = key.repeat_interleave(4, 1), value.repeat_interleave(4, 1)
    one_high = key.clone()
    one_high[:, :, keys // 2] = 100 * query[:, ::4, 0]  # heads of a group share keys: one of four is hit
    cases: list[tuple[Heads, Preset, slice]] = [
        ((query, *long), Preset(200.0, -20.0, 20.0), slice(None)),  # all numerators underflow
        ((query, *long), Preset(-200.0, -20.0, 20.0), slice(None)),  # all overflow
        ((query, *long), Preset(0.0, -20.0, 0.5), slice(None)),  # b is too low
        ((query, one_high, value), Preset(0.0, -20.0, 20.0), slice(None, None, 4)),  # one score is out of range
    ]
    errors, rates = [], []
    for heads, preset, hit in cases:
        out, again = unified(heads, preset)
        errors.append(float((out - exact_decode(heads)).abs().max()))
        rates.append(float(again[:, hit].mean()))
    return {"misled_error": max(errors), "misled_fallback_rate": min(rates)}


def time_metrics(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Time a decoding step against caches of all lengths, each form with the chunk that suits it best."""
    ratios, always, noise = {}, {}, []
    speed = float("nan")
    for number, keys in enumerate(numbers["keys"]):
        progress(0.65 + 0.25 * number / len(numbers["keys"]), f"{keys} keys")
        heads = random_heads(seed, numbers["heads"], numbers["heads"], keys, torch.float32)
        online, each_time, one, again = form_times(heads, numbers)
        ratios[keys], always[keys] = online / one, each_time / one
        noise.append(again / online)
        speed = sum(x.numel() * x.element_size() for x in heads[1:]) / one / 1e9
    progress(0.9, "bfloat16")
    heads = random_heads(seed, 4 * numbers["heads"], numbers["heads"], numbers["keys"][-2], torch.bfloat16)
    online, _, one, _ = form_times(heads, numbers)
    long = [keys for keys in numbers["keys"] if keys >= numbers["long"]]
    return {
        "time_ratio": min(ratios[keys] for keys in long),
        "time_ratio_every_chunk": min(always[keys] for keys in long),
        "time_ratio_shortest": ratios[numbers["keys"][0]],
        "time_ratio_groups_bfloat16": online / one,
        "time_noise": median(noise),
        "gigabytes_per_second": speed,
    }


def random_heads(seed: int, heads: int, key_heads: int, keys: int, dtype: torch.dtype) -> Heads:
    """Return one query a head, keys and values of width 64, standard normal."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, heads, 1, 64, generator=generator)
    key, value = torch.randn(2, 1, key_heads, keys, 64, generator=generator).unbind()
    return query.to(dtype), key.to(dtype), value.to(dtype)


def form_times(heads: Heads, numbers: Numbers) -> tuple[float, float, float, float]:
    """Return the seconds of a running maximum, of one that rescales every time, of the preset, of the first again."""
    preset = Preset(0.0, -20.0, 20.0)  # standard normal scores reach 5
    forms: list[tuple[str, tuple[float, ...]]] = [
        ("online_decode", (0.0,)),
        ("online_decode", (1.0,)),
        ("unified_decode", preset),
    ]
    out = torch.empty_like(heads[0])
    works = [
        partial(attend, name, *heads, chunk, *options, decode=True, out=out)
        for name, options in forms
        for chunk in numbers["chunks"]
    ]
    count = len(numbers["chunks"])
    times = best_times([*works, *works[:count]], numbers["rounds"], numbers["seconds"])
    online, always, one, again = (min(times[first : first + count]) for first in range(0, 4 * count, count))
    return online, always, one, again
