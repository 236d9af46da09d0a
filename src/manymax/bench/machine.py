"""What the machine can do at most: the rates that fractions refer to, measured in the same process and threads."""

from __future__ import annotations

import torch

from manymax.bench.rounds import Call, sample, timed

SECONDS = 0.3  # enough for the rate's best rounds; a limit is what the machine reaches when nothing is in its way
MATMUL_SIZE = 1024


def best(call: Call, device: str) -> float:
    """Return the seconds of a call in the best of many rounds."""
    call()
    return min(timed([sample(call, device)], SECONDS, device)[0])


def copy_bandwidth(elements: int, dtype: torch.dtype, device: str) -> float:
    """Return bytes read and written a second by a copy of that many elements into memory that is there already."""
    source = torch.ones(elements, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / best(lambda: target.copy_(source), device)


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Return floating-point operations a second of a square matrix product, a multiplication and an addition each."""
    left, right = torch.ones(2, MATMUL_SIZE, MATMUL_SIZE, dtype=dtype, device=device)
    out = torch.empty_like(left)
    return 2 * MATMUL_SIZE**3 / best(lambda: torch.mm(left, right, out=out), device)
