"""Decoding: one query against a long cache, beside a plain reading of that cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.limits import Limits, read_all
from benchmarks.measure import Measurement, of_case
from benchmarks.scale import Scale
from manymax.attention.dense.api import attention, choice
from manymax.bench.contender import Contender, run_case

READING = "reading"  # the label of a contender that computes no map
BYTES = 1 << 27  # of a cache: four times a third-level cache of 32 MB, so that it comes from memory


@dataclass(frozen=True)
class DecodeProblem:
    """One query a head, and a cache of keys and values.

    Attributes:
        groups: query heads that share a head of keys.
        heads: of keys.
        keys: tokens in the cache.
        head_dim: D, of values too.
        dtype: of all three.
    """

    groups: int
    heads: int
    keys: int
    head_dim: int
    dtype: torch.dtype
    device: str = "cpu"
    backward: bool = False

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return normal queries, keys and values."""
        generator = torch.Generator().manual_seed(0)
        query = torch.randn(1, self.groups * self.heads, 1, self.head_dim, generator=generator)
        cache = torch.randn(2, 1, self.heads, self.keys, self.head_dim, generator=generator).to(self.dtype)
        return query.to(self.dtype), *cache.unbind()

    @property
    def work(self) -> float:
        """Return the bytes of keys and values."""
        return float(sum(x.nbytes for x in self.inputs[1:]))

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest relative error of the last head; 0 for what computes no map."""
        if label == READING:
            return 0.0
        query, key, value = (x[:, -1:].double() for x in self.inputs)
        exact = F.scaled_dot_product_attention(query, key, value)
        return float((out[:, -1:] - exact).abs().max() / exact.abs().max())


def _measure(problem: DecodeProblem, limits: Limits, seconds: float) -> Measurement:
    grouped = problem.groups > 1
    served = choice(*problem.inputs, enable_gqa=grouped).name or ""
    contenders = [
        Contender("read", READING, lambda _, key, value: read_all(key, value)),
        Contender("manymax", "softmax", partial(attention, enable_gqa=grouped), served),
        Contender("sdpa", "softmax", partial(F.scaled_dot_product_attention, enable_gqa=grouped)),
    ]
    case = run_case(problem, contenders, limits.read, seconds)
    sharing = f"GQA {problem.groups}:1" if grouped else "MHA"
    dtype = str(problem.dtype).removeprefix("torch.")
    operations = 4.0 * problem.groups * problem.heads * problem.keys * problem.head_dim
    return of_case(
        "decode",
        f"{sharing}, {problem.heads} heads of keys, D {problem.head_dim}, {dtype}",
        case,
        case.rows[1],
        operations=operations,
        bytes=problem.work,
        limited_by="bytes",
        limit=limits.read,
        peer_seconds=case.rows[2].seconds,
    )


def decode(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield one query against a long cache, each query with keys of its own and four that share them."""
    for dtype in (torch.float32, torch.bfloat16):
        for dim in scale.head_dims:
            for groups in (1, 4):
                heads = BYTES // (2 * scale.keys * dim * dtype.itemsize)
                yield _measure(DecodeProblem(groups, heads, scale.keys, dim, dtype), limits, scale.seconds)
