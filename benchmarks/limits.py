"""What the machine can do at most, measured in the process that measures the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from manymax.bench.machine import best, copy_bandwidth, matmul_rate
from manymax.kernels.attention_call import DTYPES
from manymax.kernels.native import native

ELEMENTS = 1 << 25  # 128 MB, four times the largest third-level cache that a core of today's processors sees
OPERATIONS = 1e9  # of a sample: 2 ms


@dataclass(frozen=True)
class Limits:
    """Rates a second.

    Attributes:
        copy: bytes read and written by a copy.
        read: bytes read by a sum.
        float32: operations of attention's products in cache; of torch's matrix product if the build has no such entry.
        bfloat16: the same.
        products: what measured the last two.
    """

    copy: float
    read: float
    float32: float
    bfloat16: float
    products: str

    def of(self, dtype: torch.dtype) -> float:
        """Return the rate of products."""
        return self.bfloat16 if dtype == torch.bfloat16 else self.float32

    def record(self) -> dict[str, float | str]:
        """Return everything for JSON."""
        return asdict(self)


def read_all(*tensors: Tensor) -> Tensor:
    """Read every byte once, as float32 numbers to add up."""
    return torch.stack([torch.sum(x.view(-1).view(torch.float32)) for x in tensors])


def products(dtype: torch.dtype) -> Callable[[int], float] | None:
    """Return what runs products in cache a number of times and returns its operations; None in an older build."""
    peak = getattr(native(), "peak", None)
    if peak is None:
        return None
    return lambda repeats: peak(DTYPES[dtype], torch.get_num_threads(), repeats)


def product_rate(dtype: torch.dtype) -> float | None:
    """Return operations a second of products in cache, or None in an older build."""
    run = products(dtype)
    if run is None:
        return None
    repeats = max(1, round(OPERATIONS / run(1)))
    return run(repeats) / best(lambda: run(repeats), "cpu")


def measure() -> Limits:
    """Measure everything; takes a second or two."""
    memory = torch.ones(ELEMENTS)
    read = memory.nbytes / best(lambda: read_all(memory), "cpu")
    rates = [product_rate(dtype) for dtype in (torch.float32, torch.bfloat16)]
    source = "the kernels' own product loop on operands in cache"
    if None in rates:
        rates, source = [matmul_rate(dtype, "cpu") for dtype in (torch.float32, torch.bfloat16)], "torch.mm"
    float32, bfloat16 = rates
    assert float32 is not None
    assert bfloat16 is not None
    return Limits(copy_bandwidth(ELEMENTS, torch.float32, "cpu"), read, float32, bfloat16, source)
