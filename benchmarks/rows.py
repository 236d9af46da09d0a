"""Row kernels beside PyTorch and beside the machine: python benchmarks/rows.py --help.

Every line interleaves its candidates round by round in one process and reports medians; outputs are preallocated on
both sides, or allocated on both. The first line is the control: the same function against itself. The share is a
fraction of the bandwidth of a copy, or of a sum, of the same tensor in the same rounds: a map that has to read its row
twice, or two operands, cannot reach 100 % out of cache. On a busy machine take one thread and `--clock cpu`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import entmax
import torch

from manymax._environment import environment
from manymax.kernels import ops, rows, status

Call = Callable[[], object]
LENGTHS = (16, 32, 64, 128, 256, 1024, 4096, 32768, 1 << 20, 1 << 26)
THRESHOLD_LENGTHS = (1024, 8192, 131072)
ENTRIES = 1 << 24  # 64 MB of float32, twice the last cache's 32 MB; a longer row is one row
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def interleave(candidates: dict[str, Call], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return each candidate's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for turn in range(rounds):
        names = list(candidates)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            candidates[name]()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def cases(n: int) -> Iterator[tuple[str, str, dict[str, Call]]]:
    """Yield map, limit ("copy" or "read") and calls "limit", "peer" and "ours" for rows of n entries."""
    aten = torch.ops.aten
    x = torch.randn(max(1, ENTRIES // n), n)
    y, g, per_row = torch.empty_like(x), torch.randn_like(x), torch.empty(x.shape[0])
    copy = partial(y.copy_, x)
    for name in ("softmax", "log_softmax"):
        peer = partial(getattr(aten, f"_{name}").out, x, -1, False, out=y)
        yield name, "copy", {"limit": copy, "peer": peer, "ours": partial(rows.weights, name, {}, x, out=y)}
    ours = partial(rows.weights, "logsumexp", {}, x, out=per_row)
    yield "logsumexp", "read", {"limit": partial(torch.sum, x), "peer": partial(torch.logsumexp, x, -1), "ours": ours}
    for name, target in (("softmax", "grad_input"), ("log_softmax", "out")):
        saved = getattr(torch, name)(x, -1)
        peer = partial(getattr(aten, f"_{name}_backward_data").out, g, saved, -1, torch.float32, **{target: y})
        ours = partial(ops.backward, g, saved, name, [1.0], -1, None, y)
        yield f"{name} backward", "copy", {"limit": copy, "peer": peer, "ours": ours}


def threshold_cases(n: int) -> Iterator[tuple[str, str, dict[str, Call]]]:
    """Yield the same of the maps that the entmax package has; both sides allocate."""
    x = torch.randn((1 << 20) // n, n)
    for name in ("sparsemax", "entmax15"):
        calls = {
            "limit": x.clone,
            "peer": partial(getattr(entmax, name), x),
            "ours": partial(rows.weights, name, {}, x),
        }
        yield name, "copy", calls


def other_cases(n: int) -> Iterator[tuple[str, str, dict[str, Call]]]:
    """Yield all maps without a peer."""
    x = torch.randn(ENTRIES // n, n)
    y = torch.empty_like(x)
    for name in sorted(set(rows.OPTIONS) - ops.REDUCTIONS):
        yield name, "copy", {"limit": partial(y.copy_, x), "ours": partial(rows.weights, name, {}, x, out=y)}


def measure(name: str, n: int, limit: str, times: dict[str, float]) -> dict[str, Any]:
    """Return one line of the table."""
    ratio = times["peer"] / times["ours"] if "peer" in times else None
    share = times["limit"] / times["ours"]
    return {"map": name, "row": n, "ratio": ratio, "share": share, "of": limit, "seconds": times["ours"]}


def show(line: dict[str, Any]) -> None:
    """Print one line."""
    ratio = f"{line['ratio']:6.2f} x peer" if line["ratio"] else " " * 13
    print(f"{line['map']:>20} {line['row']:>9} {ratio} {line['share']:5.0%} of {line['of']}", flush=True)


def main() -> None:
    """Measure, print, and write the table's numbers if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each line (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's, %(default)s")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for one thread")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="row lengths beside PyTorch")
    parser.add_argument("--json", metavar="PATH", help="where to write the numbers and the machine's name")
    given = parser.parse_args()
    if given.clock == "cpu" and given.threads > 1:
        parser.error("--clock cpu: expected --threads 1, since processor time adds up over threads")
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    clock = CLOCKS[given.clock]
    machine = {**environment(), "kernels": status()}
    print(f"{machine['processor']}; {status()}; torch {torch.__version__}, {given.threads} threads")
    x, y = torch.randn(2, ENTRIES)
    control = interleave({"a": lambda: y.copy_(x), "b": lambda: y.copy_(x)}, given.rounds, clock)
    noise, rate = control["a"] / control["b"], ENTRIES * 8e-9 / control["a"]
    print(f"control, a copy against itself: {noise:.3f}; copy {rate:.0f} GB/s read and written")
    lines = []
    plan = [(cases, given.lengths), (threshold_cases, THRESHOLD_LENGTHS), (other_cases, (1024,))]
    for make, lengths in plan:
        for n in lengths:
            for name, limit, calls in make(n):
                rounds = max(3, given.rounds // 3) if make is threshold_cases else given.rounds
                lines.append(measure(name, n, limit, interleave(calls, rounds, clock)))
                show(lines[-1])
    if given.json:
        found = {"machine": machine, "clock": given.clock, "rounds": given.rounds, "control": noise}
        text = json.dumps({**found, "copy_gb_per_s": rate, "lines": lines}, indent=1)
        Path(given.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
