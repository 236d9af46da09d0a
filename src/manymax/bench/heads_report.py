"""Measures output layers over the number of classes; prints tables, and draws and writes what was measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from manymax._environment import environment
from manymax._records import write_whole
from manymax.bench.contender import Case
from manymax.bench.heads import HeadRow, lines, run_heads
from manymax.bench.layers import HeadProblem, default_heads, trainers
from manymax.bench.report import duration, short, speed, threads
from manymax.compare.report.wording import size
from manymax.describe.table import aligned

HEADER = ("HEAD", "BY", "TIME", "SPEED", "SPREAD", "MEMORY", "STATUS")
Cases = Sequence[tuple[int, Case]]


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that make no case, and a chart that could not be drawn, before anything is measured."""
    for name in ("tokens", "features", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name}: expected at least 1, got {value}")
    for classes in args.classes:
        if classes < 8:  # torch's adaptive softmax needs three clusters
            raise ValueError(f"--classes: expected at least 8, got {classes}")
    if len(set(args.classes)) < len(args.classes):
        raise ValueError(f"--classes: expected each number once, got {' '.join(map(str, args.classes))}")
    if not args.seconds > 0:
        raise ValueError(f"--seconds: expected a number above 0, got {args.seconds}")
    if args.chart:
        from manymax._extras import require  # noqa: PLC0415

        require("matplotlib", "compare")


def _headline(args: argparse.Namespace, record: dict[str, Any]) -> str:
    machine = f"{record['threads']} threads of {record['processor']}, torch {record['torch']}"
    return (
        f"heads: a training step, the weights' update included, {args.tokens} tokens of {args.features} features; "
        f"{machine}\n"
        "SPEED: the time of torch's cross_entropy of all scores over the row's own, paired by round; above 1 is "
        "faster\n"
        "SPREAD: the 95 % interval of its median; below 6 rounds the range\n"
        "MEMORY: of a step at its peak, beyond what the layer holds between steps"
    )


def _cells(case: Case, row: HeadRow) -> tuple[str, ...]:
    """Return a row of a case's table."""
    by = row.name + (f" ({row.backend})" if row.backend else "")
    memory = "" if row.peak_bytes is None else size(row.peak_bytes)
    if row.seconds is None:
        return row.map, by, "", "", "", memory, f"{row.status}: {row.message}"
    if row.speed is None:
        return row.map, by, duration(row.seconds), "", "", memory, row.status
    low, _, high = row.speed
    spread = "" if row is case.rows[0] else f"{short(low)} to {short(high)}"
    return row.map, by, duration(row.seconds), speed(case, row, *row.speed), spread, memory, row.status


def _growth(cases: Cases) -> list[str]:
    """Return the table of times over the number of classes, and how many times the first the last one is."""
    header = ("TIME OF A STEP", *(f"{classes:,}" for classes, _ in cases), "GROWTH")
    rows = []
    for name, points in lines(cases, "seconds"):
        found = dict(points)
        times = [duration(found[classes]) if classes in found else "" for classes, _ in cases]
        first, last = found.get(cases[0][0]), found.get(cases[-1][0])
        rows.append((name, *times, "" if first is None or last is None else f"{short(last / first)}x"))
    return aligned([header, *rows], right=set(range(1, len(header))))


def bench(args: argparse.Namespace) -> None:
    """Measure every number of classes and print its table when it is done, then all times together.

    Args:
        args: as `manymax bench heads` parses them; missing heads get their default.
    """
    args.heads = args.heads or default_heads()
    _check(args)
    entrants = trainers(args.heads)
    cases: list[tuple[int, Case]] = []
    with threads(args.threads):
        record = environment("float32", args.device)
        print(_headline(args, record), flush=True)
        for classes in sorted(args.classes):
            problem = HeadProblem(classes, args.tokens, args.features, args.device)
            case = run_heads(problem, entrants, args.seconds / len(args.classes))
            control = "failed" if case.noise_floor is None else f"noise floor {case.noise_floor:.1%}"
            title = f"{classes:,} classes; A/A control: {control}; {case.rounds} rounds"
            cells = [_cells(case, row) for row in case.rows if isinstance(row, HeadRow)]
            print("\n".join(["", title, *aligned([HEADER, *cells], right={2, 3, 5})]), flush=True)
            cases.append((classes, case))
    print("\n".join(["", *_growth(cases)]), flush=True)
    if args.chart:
        from manymax.bench.heads_chart import chart  # noqa: PLC0415 -- matplotlib is an extra

        write_whole(Path(args.chart), chart(cases))
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key not in {"run", "command", "debug", "json"}}
        written = [{"classes": classes, **asdict(case)} for classes, case in cases]
        result = {"settings": settings, "environment": record, "cases": written}
        write_whole(Path(args.json), json.dumps(result, indent=1) + "\n")
