"""Attention over many queries: forward passes, training, maps beside each other, eager formulas, short work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.limits import Limits, products
from benchmarks.measure import Measurement, of_case
from benchmarks.scale import Scale
from manymax.bench.attention import AttentionProblem, contenders
from manymax.bench.contender import Case, Contender, as_call, run_case
from manymax.compare.memory import peak_memory

DTYPES = (torch.float32, torch.bfloat16)
LIGHT = ("sigmoid", "relu")
MAPS = (
    *LIGHT,
    "squared_relu",
    "softmax1",
    "softplus",
    "stablemax",
    "power_softmax",
    "spherical_softmax",
    "taylor_softmax",
)
SHARED = 4096  # tokens at which the share of the product rate is a goal
LONGEST = 4096  # tokens of training: at 16384 a step of PyTorch takes seconds
LIMIT = "products in cache"  # the label of a contender that computes no map


@dataclass(frozen=True)
class Beside(AttentionProblem):
    """A problem beside products that compute nothing of use."""

    def error(self, label: str, out: Tensor) -> float:
        """Return the error beside the formula; 0 where there is none."""
        return 0.0 if label == LIMIT else super().error(label, out)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _problem(
    heads: int, length: int, dtype: torch.dtype, *, dim: int = 64, causal: bool = False, backward: bool = False
) -> AttentionProblem:
    return AttentionProblem(1, heads, length, dim, dtype, "cpu", causal, backward)


def _describe(problem: AttentionProblem, *more: str) -> str:
    heads = f"{problem.heads} head{'s' if problem.heads > 1 else ''}"
    sizes = [f"N {problem.length}", f"D {problem.head_dim}", heads, _name(problem.dtype)]
    return ", ".join([*sizes, *(["causal"] if problem.is_causal else []), *more])


def _known(problem: AttentionProblem, limits: Limits) -> dict[str, float]:
    """Return the work and its limit, for a measurement. Backwards reads queries, keys, values, the output and its
    gradient, and writes three gradients.
    """
    size = problem.inputs[0].nbytes
    return {
        "operations": problem.work,
        "bytes": float(size * (12 if problem.backward else 4)),
        "limit": limits.of(problem.dtype),
    }


def _beside_torch(goal: str, problem: AttentionProblem, limits: Limits, seconds: float, *more: str) -> Measurement:
    """Return our softmax attention beside torch's."""
    case = run_case(problem, contenders(["softmax"], ["sdpa"], problem), limits.of(problem.dtype), seconds)
    return of_case(goal, _describe(problem, *more), case, case.rows[1], **_known(problem, limits))


def forward(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield softmax attention beside torch's own."""
    for dtype in DTYPES:
        for dim in scale.head_dims:
            for length, heads in scale.heads.items():
                for causal in (False, True):
                    problem = _problem(heads, length, dtype, dim=dim, causal=causal)
                    short = "/short" if dtype == torch.bfloat16 and length < 4096 else ""
                    yield _beside_torch(f"forward/{_name(dtype)}{short}", problem, limits, scale.seconds)
    yield from share(scale, limits)


def share(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield softmax attention beside as many operations of its own products in cache, in the same rounds."""
    run = products(torch.float32)
    if run is None:
        return
    for dim in scale.head_dims:
        problem = Beside(1, scale.heads[SHARED], SHARED, dim, torch.float32, "cpu")
        repeats = round(problem.work / run(1))

        def bare(query: Tensor, key: Tensor, value: Tensor, repeats: int = repeats) -> Tensor:
            del query, key, value
            run(repeats)
            return torch.zeros(())

        (ours,) = (one for one in contenders(["softmax"], [], problem) if one.name == "manymax")
        case = run_case(problem, [Contender("products", LIMIT, bare), ours], limits.float32, scale.seconds)
        yield of_case("forward/float32/share", _describe(problem), case, case.rows[1], **_known(problem, limits))


def training(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield softmax attention with its gradients beside torch's own."""
    for dtype in DTYPES:
        for dim in scale.head_dims:
            for length, heads in scale.heads.items():
                for causal in (False, True):
                    if length <= LONGEST:
                        problem = _problem(heads, length, dtype, dim=dim, causal=causal, backward=True)
                        yield _beside_torch(f"training/{_name(dtype)}", problem, limits, scale.seconds)


def maps(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield every pointwise and ratio map beside our softmax."""
    for dtype in DTYPES:
        for backward in (False, True):
            problem = _problem(2, scale.length, dtype, backward=backward)
            ours = [one for one in contenders(["softmax", *MAPS], [], problem) if one.name == "manymax"]
            case = run_case(problem, ours, limits.of(dtype), scale.seconds * 4)
            for row in case.rows[1:]:
                goal = f"maps/{'training' if backward else 'forward'}{'/light' if row.map in LIGHT else ''}"
                name = _describe(problem, row.map)
                yield of_case(goal, name, case, row, inverse=True, **_known(problem, limits))


def _peak(call: Callable[[], object]) -> float:
    call()
    with peak_memory() as peak:
        call()
    return float(peak.bytes or 0)


def _memory(length: int, label: str) -> Measurement:
    """Return by how much the peak memory of a map's training step grows when the length doubles."""

    def peaks(length: int, peers: list[str]) -> dict[str, float]:
        problem = _problem(1, length, torch.float32, backward=True)
        found = [one for one in contenders([label], peers, problem) if one.map == label]
        return {one.name: _peak(as_call(one, problem)) for one in found}

    small, large = peaks(length, ["eager"]), peaks(2 * length, [])
    eager, ours, more = (value / 1e6 for value in (small["eager"], small["manymax"], large["manymax"]))
    name = f"{label}, 1 head, D 64, float32: {ours:.0f} MB, {more:.0f} MB at N {2 * length}; eager {eager:.0f} MB"
    return Measurement("eager/memory", name, more / ours if ours else None, message="no peak was measured")


def _beside_formula(
    group: str, label: str, peer: str, problem: AttentionProblem, limits: Limits, seconds: float
) -> Measurement:
    """Return our attention with a map beside its formula in plain torch."""
    found = {one.name: one for one in contenders([label], [peer], problem) if one.map == label}
    case: Case = run_case(problem, [found[peer], found["manymax"]], limits.of(problem.dtype), seconds)
    goal = f"{group}/{'training' if problem.backward else 'forward'}"
    return of_case(goal, _describe(problem, label), case, case.rows[1], **_known(problem, limits))


def eager(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield maps beside their formulas in plain torch: time, and peak memory."""
    for label in ("sigmoid", "softplus", "stablemax"):
        for backward in (False, True):
            problem = _problem(2, scale.length, torch.float32, backward=backward)
            yield _beside_formula("eager", label, "eager", problem, limits, scale.seconds)
        yield _memory(scale.length, label)


def threshold(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield maps with a cut beside the formula with the entmax package."""
    for label in ("entmax15", "sparsemax"):
        for backward in (False, True):
            problem = _problem(2, scale.length // 2, torch.float32, backward=backward)
            yield _beside_formula("threshold", label, "entmax", problem, limits, scale.seconds)


def short(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield work so short that a call's overhead shows."""
    for dtype in DTYPES:
        for length in scale.short:
            for backward in (False, True):
                problem = _problem(8, length, dtype, backward=backward)
                passes = "forward and backward" if backward else "forward"
                yield _beside_torch("short", problem, limits, scale.seconds / 2, passes)
