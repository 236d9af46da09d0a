"""Runs the cases of a benchmark one by one; prints a table for each and writes all of them as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from manymax._environment import environment
from manymax._records import write_whole
from manymax.bench import attention, command, maps
from manymax.bench.contender import Case, Row, run_case
from manymax.bench.machine import copy_bandwidth, matmul_rate
from manymax.describe.table import aligned
from manymax.maps.module import list_maps

LENGTHS = {"attention": [256, 1024], "maps": [256, 4096]}
ATTENTION_MAPS = ["softmax", "softmax1", "sigmoid", "relu", "softplus", "stablemax", "sparsemax", "entmax15"]
LIMITS = {"attention": ("matrix product", "GFLOP/s"), "maps": ("copy", "GB/s")}
HEADER = ("MAP", "BY", "TIME", "SPEED", "SPREAD", "OF LIMIT", "STATUS")


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that make no case."""
    for name in ("batch", "heads", "head_dim", "rows", "threads"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    for length in args.lengths:
        if length < 1:
            raise ValueError(f"--lengths: expected at least 1, got {length}")
    if not args.seconds > 0:
        raise ValueError(f"--seconds: expected a number above 0, got {args.seconds}")
    for label in args.maps:
        maps.make_map(label)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Have torch use that many threads inside the `with` block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _case(args: argparse.Namespace, length: int, dtype: torch.dtype, seconds: float) -> tuple[Case, float]:
    """Measure one case; return it with the machine's limit in its units of work a second."""
    if args.what == "maps":
        rows = maps.MapProblem(args.rows, length, dtype, args.device, args.backward)
        limit = copy_bandwidth(args.rows * length, dtype, args.device)
        return run_case(rows, maps.contenders(args.maps, args.peers, length), limit, seconds), limit
    sizes = (args.batch, args.heads, length, args.head_dim)
    problem = attention.AttentionProblem(*sizes, dtype, args.device, args.causal, args.backward)
    limit = matmul_rate(dtype, args.device)
    return run_case(problem, attention.contenders(args.maps, args.peers, problem, args.backend), limit, seconds), limit


def short(ratio: float) -> str:
    """Return two decimals, or two digits of a ratio that they would round away."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def duration(seconds: float) -> str:
    """Return milliseconds, or seconds where there are whole ones."""
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def speed(case: Case, row: Row, low: float, middle: float, high: float) -> str:
    """Return a ratio as text; one whose interval does not leave the noise floor behind is no difference."""
    if row is case.rows[0]:
        return "baseline"
    bar = 1 + (case.noise_floor or 0)
    return f"{short(middle)}x" if low > bar or high < 1 / bar else "no difference"


def _cells(case: Case, row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    by = row.name + (f" ({row.backend})" if row.backend else "")
    if row.seconds is None or row.speed is None or row.share is None:
        return row.map, by, "", "", "", "", f"{row.status}: {row.message}"
    low, _, high = row.speed
    spread = "" if row is case.rows[0] else f"{short(low)} to {short(high)}"
    return row.map, by, duration(row.seconds), speed(case, row, *row.speed), spread, f"{row.share:.0%}", row.status


def _title(args: argparse.Namespace, length: int, dtype: str, case: Case, limit: float) -> str:
    name, unit = LIMITS[args.what]
    control = "failed" if case.noise_floor is None else f"noise floor {case.noise_floor:.1%}"
    rate = f"{name} at {limit / 1e9:.1f} {unit}"
    return f"length {length}, {dtype}; A/A control: {control}; {case.rounds} rounds; limit: {rate}"


def _headline(args: argparse.Namespace, record: dict[str, Any]) -> str:
    sizes = f"{args.rows} rows" if args.what == "maps" else f"batch {args.batch}, {args.heads} heads of {args.head_dim}"
    causal = ", causal" if getattr(args, "causal", False) else ""
    passes = "forward and backward" if args.backward else "forward"
    machine = f"{record['threads']} threads of {record['processor']}, torch {record['torch']}"
    first = "torch's softmax" if args.what == "maps" else "torch's scaled_dot_product_attention"
    return (
        f"{args.what}: {sizes}{causal}, {passes}; {machine}\n"
        f"SPEED: the time of {first} over the row's own, paired by round; above 1 is faster\n"
        "SPREAD: the 95 % interval of its median; below 6 rounds the range"
    )


def bench(args: argparse.Namespace) -> None:
    """Measure every case and print its table when it is done.

    Args:
        args: as `manymax bench` parses them; missing lengths, maps and peers get their defaults.
    """
    args.lengths = args.lengths or LENGTHS[args.what]
    args.maps = args.maps or (list_maps() if args.what == "maps" else ATTENTION_MAPS)
    args.peers = command.installed(args.what) if args.peers is None else args.peers
    _check(args)
    seconds = args.seconds / (len(args.lengths) * len(args.dtypes))
    with threads(args.threads):
        record = environment(",".join(args.dtypes), args.device)
        print(_headline(args, record), flush=True)
        cases = []
        for dtype in args.dtypes:
            for length in args.lengths:
                case, limit = _case(args, length, getattr(torch, dtype), seconds)
                table = aligned([HEADER, *(_cells(case, row) for row in case.rows)], right={2, 3, 5})
                print("\n".join(["", _title(args, length, dtype, case, limit), *table]), flush=True)
                cases.append({"length": length, "dtype": dtype, "limit_per_second": limit, **asdict(case)})
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key not in {"run", "command", "debug", "json"}}
        result = {"settings": settings, "environment": record, "cases": cases}
        write_whole(Path(args.json), json.dumps(result, indent=1) + "\n")
