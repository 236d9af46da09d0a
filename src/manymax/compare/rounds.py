"""Timing in rounds: every contestant once a round, in changing order, so that a slow minute of the machine hits all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from manymax.compare.stats import median_interval

# Below 6 rounds the interval of a median is the range of the values; beyond 60 the machine drifts by more than the
# interval shrinks.
FEWEST, MOST = 3, 60
Interval = tuple[float, float, float]


def stopwatch(work: Callable[[], object], device: str) -> float:
    """Return the seconds that a piece of work takes, the accelerator's included."""
    accelerated = torch.device(device).type != "cpu"
    if accelerated:
        torch.accelerator.synchronize()
    begin = time.perf_counter()
    work()
    if accelerated:
        torch.accelerator.synchronize()
    return time.perf_counter() - begin


def play(contestants: Sequence[Callable[[], object]], allowance: float, device: str) -> list[list[float]]:
    """Time every contestant once in each round; return seconds by contestant and round.

    The order turns by one place each round and is reversed every other, so that no contestant always follows the same
    one or always comes first.

    Args:
        contestants: what is timed.
        allowance: seconds after which no further round begins, once FEWEST are done; MOST are enough.
        device: where they compute.
    """
    seconds: list[list[float]] = [[] for _ in contestants]
    order = list(range(len(contestants)))
    begin = time.perf_counter()
    for number in range(MOST):
        turned = order[number % len(order) :] + order[: number % len(order)]
        for index in reversed(turned) if number % 2 else turned:
            seconds[index].append(stopwatch(contestants[index], device))
        if number + 1 >= FEWEST and time.perf_counter() > begin + allowance:
            break
    return seconds


def speed_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Interval:
    """Return (low, median, high) of how many times as fast as the baseline a candidate is, paired by round."""
    return median_interval([b / c for b, c in zip(baseline, candidate, strict=True)])


def noise_floor(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how far from 1 the interval of two equal contestants' ratio reaches: smaller differences mean nothing."""
    low, _, high = speed_ratio(one, other)
    return max(1 - low, high - 1)
