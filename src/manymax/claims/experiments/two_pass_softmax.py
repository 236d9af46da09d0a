"""softmax in two and in three passes over memory: times and errors (Dukhan and Ablavatski, 2020)."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.studies import on_rows
from manymax.claims.experiments.timing import best_times

KERNELS = ("two_pass", "three_pass_recompute", "three_pass_reload")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
BYTES = 4  # of float32
FAR = 1e4  # the largest |x|
LENGTHS = (1, 17, 1000, 65539)  # around a vector, a step, and of several thousand steps


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Compute hard rows, then time all lengths."""
    progress(0.0, "hard rows")
    generator = torch.Generator().manual_seed(seed)
    metrics = hard_rows(generator)
    cache = numbers["last_level_cache"] or last_level_cache()
    return metrics | time_metrics(generator, cache, numbers, progress)


def last_level_cache() -> int | None:
    """Return the size in bytes of the largest cache that Linux knows of, or None."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = (path.read_text().strip() for path in CACHES.glob("index*/size"))
    return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=None)


def rows(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return rows of n scores of up to 1e4, by what is hard about them."""
    sign = torch.randint(2, (n,), generator=generator) * 2.0 - 1
    return {
        "all high": torch.full((n,), FAR),
        "all low": torch.full((n,), -FAR),
        "high and low": FAR * sign,
        "one high": torch.cat([torch.full((n - 1,), -FAR), torch.tensor([FAR])]),
        "rising": torch.linspace(-FAR, FAR, n),
        "uniform": FAR * (2 * torch.rand(n, generator=generator) - 1),
        "near each other, far up": FAR - torch.rand(n, generator=generator),
        "normal": torch.randn(n, generator=generator),
    }


def hard_rows(generator: torch.Generator) -> Metrics:
    """Return how many results are not finite, and the largest errors against float64."""
    wrong, errors = 0, dict.fromkeys(KERNELS, 0.0)
    for n in LENGTHS:
        for x in rows(n, generator).values():
            exact = torch.softmax(x.double(), -1)
            for kernel in KERNELS:
                y = on_rows(kernel, x, torch.full_like(x, math.nan), threads=torch.get_num_threads())
                wrong += int((~y.isfinite()).sum())
                errors[kernel] = max(errors[kernel], float((y - exact).abs().max()))
    return {
        "not_finite": float(wrong),
        "largest_error": errors["two_pass"],
        "three_pass_error": max(errors[kernel] for kernel in KERNELS[1:]),
    }


def time_metrics(generator: torch.Generator, cache: int | None, numbers: Numbers, progress: Progress) -> Metrics:
    """Time the three kernels at all lengths, on one thread and, out of cache, on all.

    Args:
        generator: of the scores.
        cache: bytes of the last-level cache, None if unknown.
        numbers: of the run.
        progress: told about the lengths.
    """
    exponents = range(numbers["smallest"], numbers["largest"] + 1)
    x = numbers["spread"] * (2 * torch.rand(2 ** exponents[-1], generator=generator) - 1)
    y = torch.zeros_like(x)
    small, large, shared, noise, times = [], [], [], [], [math.nan]
    for number, exponent in enumerate(exponents):
        n = 2**exponent
        progress((number + 1) / (len(exponents) + 1), f"{n} entries")
        times = kernel_times(x[:n], y[:n], numbers, threads=1)
        if cache is not None and n * BYTES <= cache / 16:
            small.append(ratio(times))
        if cache is not None and n * BYTES > 4 * cache:
            large.append(ratio(times))
            noise.append(times[-1] / times[0])
            shared.append(ratio(kernel_times(x[:n], y[:n], numbers, threads=torch.get_num_threads())))
    unknown = Untestable("the size of the last-level cache is not known, or no array is 4 times as large")
    return {
        "ratio_out_of_cache": min(large) if large else unknown,
        "ratio_in_cache": median(small) if small else Untestable("no array is a 16th of the last-level cache"),
        "ratio_all_threads": min(shared) if shared else unknown,
        "time_noise": max(noise, key=lambda each: abs(math.log(each))) if noise else unknown,
        "gigabytes_per_second": 2 * BYTES * 2 ** exponents[-1] / times[0] / 1e9,
    }


def kernel_times(x: Tensor, y: Tensor, numbers: Numbers, threads: int) -> list[float]:
    """Return the seconds of the three kernels, and of the first again."""
    works = [partial(on_rows, kernel, x, y, threads=threads) for kernel in (*KERNELS, KERNELS[0])]
    clock = time.process_time if threads == 1 else time.perf_counter
    return best_times(works, numbers["rounds"], numbers["seconds"], clock)


def ratio(times: list[float]) -> float:
    """Return the time of the faster kernel of three passes over that of two."""
    two, recompute, reload, again = times
    return min(recompute, reload) / min(two, again)
