"""`python -m benchmarks`: measure every goal of the kernels and print one table; the site's is docs/benchmarks.json."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import attention, decode, heads, linear, results, row_kernels, whole_models
from benchmarks.errors import errors
from benchmarks.limits import Limits, measure
from benchmarks.measure import Measurement
from benchmarks.scale import FULL, QUICK, Scale

Group = Callable[[Scale, Limits], Iterator[Measurement]]
GROUPS: dict[str, Group] = {
    "forward": attention.forward,
    "training": attention.training,
    "maps": attention.maps,
    "eager": attention.eager,
    "threshold": attention.threshold,
    "decode": decode.decode,
    "rows": row_kernels.rows,
    "linear": linear.recurrences,
    "heads": heads.heads,
    "short": attention.short,
    "models": whole_models.whole_models,
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds: a minute, and noisy")
    made.add_argument("--only", nargs="+", choices=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    made.add_argument(
        "--json", type=Path, metavar="PATH", help="write the results there; docs/benchmarks.json is the site's"
    )
    return made


def collect(groups: Sequence[str], scale: Scale, limits: Limits, into: list[Measurement]) -> None:
    """Measure groups one by one; whatever is interrupted, what is measured is in the list."""
    begin = time.perf_counter()
    for group in groups:
        for one in GROUPS[group](scale, limits):
            into.append(one)
            print(f"[{time.perf_counter() - begin:4.0f} s] {results.line(one)}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    args = parser().parse_args(arguments)
    scale = QUICK if args.quick else FULL
    machine = results.machine(scale)
    print(
        f"{machine['processor']}, {machine['threads']} threads, {machine['kernels']}, torch {machine['torch']}, ",
        end="",
    )
    print(f"load {machine['load']}, {scale.name} run", flush=True)
    found: list[Measurement] = []
    code = 0
    try:
        limits = measure()
        print(
            f"limits: copy {limits.copy / 1e9:.0f} GB/s, read {limits.read / 1e9:.0f} GB/s, products "
            f"{limits.float32 / 1e9:.0f} GFLOP/s in float32 and {limits.bfloat16 / 1e9:.0f} in bfloat16 "
            f"({limits.products})",
            flush=True,
        )
        collect(args.only or list(GROUPS), scale, limits, found)
        if args.json:
            results.write(args.json, machine, limits, found, list(errors()))
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        code = 130
    verdicts = results.verdicts(found)
    if args.only:
        verdicts = {key: one for key, one in verdicts.items() if one.met != "not measured"}
    print(f"\n{results.table(verdicts)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
