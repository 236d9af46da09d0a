"""The linear recurrence beside chunked forms in plain PyTorch, transformers and our own softmax attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import median

import torch
from torch import Tensor

from benchmarks import linear_peers
from benchmarks.limits import Limits
from benchmarks.linear_step import DIM, HEADS, READING, steps
from benchmarks.measure import Measurement, of_case
from benchmarks.scale import Scale
from manymax.attention.dense.api import attention
from manymax.bench.contender import Contender, as_call, run_case
from manymax.bench.rounds import sample, timed
from manymax.compare.rounds import speed_ratio, stopwatch
from manymax.kernels import linear

KINDS = ("plain", "decay", "delta rule")
CHUNK = 48  # of the kernels


@dataclass(frozen=True)
class LinearProblem:
    """Inputs of a recurrence, and its last outputs token by token in float64.

    Attributes:
        kind: one of KINDS.
        length: tokens.
        backward: whether the gradients are part of the work.
    """

    kind: str
    length: int
    backward: bool = False
    device: str = "cpu"

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return query, key and value, then log_decay and beta where the kind has them."""
        generator = torch.Generator().manual_seed(0)
        query, key, value = torch.randn(3, 1, HEADS, self.length, DIM, generator=generator).unbind()
        log_decay, beta = torch.rand(2, 1, HEADS, self.length, generator=generator).unbind()
        count = 3 + KINDS.index(self.kind)
        return (query, torch.nn.functional.normalize(key, dim=-1), value, -0.1 * log_decay, beta)[:count]

    @property
    def work(self) -> float:
        """Return the operations of the kernels' products: whole ones of D^2, and halves of D times a chunk, a token."""
        whole, half = {(False, False): (2, 2), (False, True): (7, 7), (True, False): (3, 4), (True, True): (11, 16)}[
            self.kind == "delta rule", self.backward
        ]
        return HEADS * self.length * DIM * (2.0 * whole * DIM + half * CHUNK)

    @cached_property
    def exact(self) -> Tensor:
        """Return the last head's outputs."""
        query, key, value, *rest = (x[0, -1].double() for x in self.inputs)
        state, outs = torch.zeros(DIM, DIM, dtype=torch.float64), []
        for t in range(self.length):
            state = state * rest[0][t].exp() if rest else state
            written = rest[1][t] * (value[t] - key[t] @ state) if len(rest) > 1 else value[t]
            state = state + key[t][:, None] * written
            outs.append(query[t] @ state)
        return torch.stack(outs)

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest relative error of the last head."""
        del label
        return float((out[0, -1] - self.exact).abs().max() / self.exact.abs().max())


def ours(*inputs: Tensor) -> Tensor:
    """Return the native recurrence."""
    return linear.attend(*inputs)[0]


def _best_peer(problem: LinearProblem) -> Contender:
    """Return the chunked form in plain PyTorch with the size of chunk that is fastest, at a quarter of the length."""
    form = {"plain": linear_peers.plain, "decay": linear_peers.decayed, "delta rule": linear_peers.delta}[problem.kind]
    sizes = [size for size in linear_peers.SIZES if problem.length % size == 0] or [problem.length]
    found = [Contender(f"chunks of {size}", problem.kind, partial(form, size=size)) for size in sizes]

    short = LinearProblem(problem.kind, min(problem.length, max(problem.length // 4, sizes[-1])), problem.backward)

    def seconds(one: Contender) -> float:
        call = as_call(one, short)
        call()
        return min(stopwatch(call, "cpu") for _ in range(3))

    return min(found, key=seconds)


def _beside(goal: str, problem: LinearProblem, peer: Contender, limits: Limits, seconds: float) -> Measurement:
    case = run_case(problem, [peer, Contender("manymax", problem.kind, ours, "cpu")], limits.float32, seconds)
    passes = "forward and backward" if problem.backward else "forward"
    name = f"{problem.kind}, N {problem.length}, {passes}, beside {peer.name}"
    known = {"operations": problem.work, "limit": limits.float32, "backend": "cpu"}
    return of_case(goal, name, case, case.rows[1], **known)


def _growth(kind: str, lengths: tuple[int, int], seconds: float) -> Measurement:
    """Return the time of a token in a long sequence over that in a short one."""
    problems = [LinearProblem(kind, length) for length in lengths]
    calls = [as_call(Contender("manymax", kind, ours), problem) for problem in problems]
    for call in calls:
        call()
    times = timed([sample(call, "cpu") for call in calls], seconds, "cpu")
    low, middle, high = speed_ratio(*([x / n for x in own] for own, n in zip(times[::-1], lengths[::-1], strict=True)))
    known = {"seconds": median(times[1]), "operations": problems[1].work}
    return Measurement("linear/length", f"{kind}, N {lengths[1]} over N {lengths[0]}", middle, low, high, **known)


def _crossover(lengths: tuple[int, ...], seconds: float) -> Measurement:
    """Return the shortest length at which the recurrence trains faster than our softmax attention."""
    softmax = Contender("softmax", READING, partial(attention, is_causal=True, backend="cpu"))
    faster = math.inf
    found = []
    for length in sorted(lengths, reverse=True):
        case = run_case(
            Plain("plain", length, backward=True), [softmax, Contender("manymax", "plain", ours)], 1, seconds
        )
        speed = case.rows[1].speed
        assert speed is not None
        found.append(f"{speed[1]:.2f}x at N {length}")
        if speed[1] < 1:
            break
        faster = length
    return Measurement("linear/crossover", f"plain, forward and backward: {', '.join(found)}", faster)


@dataclass(frozen=True)
class Plain(LinearProblem):
    """A problem beside something that computes no recurrence."""

    def error(self, label: str, out: Tensor) -> float:
        """Return 0 for that."""
        return 0.0 if label == READING else super().error(label, out)


def recurrences(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield forward passes, training, growth with length, the gated delta rule, decoding and the crossover."""
    short, middle, long = scale.recurrence
    problem = LinearProblem("plain", middle)
    yield _beside("linear/forward", problem, _best_peer(problem), limits, scale.seconds)
    for kind in KINDS:
        problem = LinearProblem(kind, middle, backward=True)
        yield _beside("linear/training", problem, _best_peer(problem), limits, scale.seconds)
    for kind in KINDS:
        yield _growth(kind, (short, long), scale.seconds)
    name, form = linear_peers.transformers_delta()
    yield _beside("linear/delta", problem, Contender(name, "delta rule", form), limits, scale.seconds)
    yield from steps(limits, scale.seconds)
    yield _crossover(tuple(middle >> shift for shift in range(3, 8)), scale.seconds / 2)
