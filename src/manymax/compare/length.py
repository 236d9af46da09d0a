"""Attention alone over the number of tokens: time and memory of forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.compare.backends import observe
from manymax.compare.jobs import Order
from manymax.compare.memory import peak_memory
from manymax.compare.outcome import of_error
from manymax.compare.rounds import noise_floor, play
from manymax.compare.subject import Subject

CONTROL = 0.1  # share of the time for the baseline against itself
GROWTH = 4.0  # of the time when the length doubles: all pairs
MOST_OF_ALLOWANCE = 0.04  # one call may take this share of the job's time, or a long length would eat all of it


@dataclass
class Track:
    """A candidate on its way through the lengths."""

    module: nn.Module | None
    seconds: list[float | None]
    peaks: list[int | None]
    backends: list[str | None]
    status: str = "ok"
    message: str = ""


class Lengths:
    """The inputs of a length, the same for all candidates: one example, the model's heads."""

    def __init__(self, subject: Subject) -> None:
        size = subject.model(subject.plan.baseline, 0).size
        self.subject = subject
        self.head_dim, self.num_heads = size.head_dim, size.num_heads
        self.causal = subject.task.family == "gpt"

    def inputs(self, length: int) -> tuple[Tensor, ...]:
        """Return query, key, value and the gradient of the output, (1, H, length, D)."""
        generator = torch.Generator().manual_seed(length)
        shape = (1, self.num_heads, length, self.head_dim)
        dtype, device = self.subject.dtype, self.subject.plan.device
        return tuple(torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4))

    def module(self, label: str) -> nn.Module:
        """Return the candidate's mechanism."""
        chosen = self.subject.plan.candidate(label)
        sizes = {"head_dim": self.head_dim, "num_heads": self.num_heads}
        module: nn.Module = create_attention(chosen.system, **sizes, **dict(chosen.options))
        return module.to(self.subject.plan.device)

    def call(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Run forward and backward."""
        query, key, value = (x.detach().requires_grad_() for x in inputs[:3])
        out = module(query, key, value, is_causal=self.causal)
        out.backward(inputs[3])


def perform(order: Order, subject: Subject, tell: Callable[[float], None]) -> dict[str, Any]:
    """Measure all candidates at every length that the time allows."""
    lengths = Lengths(subject)
    tracks = {label: _track(lengths, label) for label in order.candidates}
    points = list(subject.plan.lengths)
    begin = time.perf_counter()
    floor = _control(lengths, order.candidates[0], points[len(points) // 2], CONTROL * order.allowance)
    for number, length in enumerate(points):
        left = order.allowance - (time.perf_counter() - begin)
        # In proportion to the length: a round takes four times as long at twice the length, and needs half as many.
        share = left * length / sum(points[number:])
        _measure(lengths, tracks, length, share, order.allowance * MOST_OF_ALLOWANCE)
        tell((number + 1) / len(points))
    return {
        "metrics": {
            "noise_floor": floor,
            "lengths": points,
            "candidates": {label: _result(track) for label, track in tracks.items()},
            "crossover": {
                label: crossover(points, tracks[order.candidates[0]].seconds, track.seconds)
                for label, track in tracks.items()
                if label != order.candidates[0]
            },
        }
    }


def _track(lengths: Lengths, label: str) -> Track:
    try:
        return Track(lengths.module(label), [], [], [])
    except Exception as error:  # noqa: BLE001  (whatever a candidate does, the others are measured)
        return Track(None, [], [], [], *of_error(error))


def _control(lengths: Lengths, label: str, length: int, allowance: float) -> float:
    """Return the noise floor: the baseline against itself at a middle length."""
    calls = [partial(lengths.call, lengths.module(label), lengths.inputs(length)) for _ in range(2)]
    for call in calls:
        call()
    return noise_floor(*play(calls, allowance, lengths.subject.plan.device))


def _measure(lengths: Lengths, tracks: dict[str, Track], length: int, allowance: float, most: float) -> None:
    """Measure a length: memory once, then time in rounds; a candidate too slow for it is left out from here on."""
    inputs, device = lengths.inputs(length), lengths.subject.plan.device
    calls: dict[str, Callable[[], None]] = {}
    for label, track in tracks.items():
        last = track.seconds[-1] if track.seconds else 0.0
        if track.module is not None and last is not None and last * GROWTH <= most:
            call = partial(lengths.call, track.module, inputs)
            try:
                with peak_memory(device) as peak, observe() as served:
                    call()
                call()
                calls[label] = call
                track.peaks.append(peak.bytes)
                track.backends.append(str(served))
                continue
            except Exception as error:  # noqa: BLE001
                track.status, track.message = of_error(error)
                track.module = None
        track.peaks.append(None)
        track.backends.append(None)
    seconds = dict(zip(calls, play(list(calls.values()), allowance, device), strict=True)) if calls else {}
    for label, track in tracks.items():
        track.seconds.append(median(seconds[label]) if label in seconds else None)


def _result(track: Track) -> dict[str, Any]:
    return {
        "status": track.status,
        "message": track.message,
        "backend": track.backends,
        "seconds": track.seconds,
        "peak_bytes": track.peaks,
    }


def crossover(lengths: list[int], baseline: list[float | None], candidate: list[float | None]) -> int | None:
    """Return the shortest length from which on the candidate is never slower than the baseline; None without one."""
    found = None
    for length, theirs, mine in zip(lengths, baseline, candidate, strict=True):
        if theirs is None or mine is None:
            continue
        if mine > theirs:
            found = None
        elif found is None:
            found = length
    return found
