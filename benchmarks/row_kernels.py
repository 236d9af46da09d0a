"""The row kernels' measurements, which `benchmarks/rows.py` makes in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.limits import Limits
from benchmarks.measure import Measurement
from benchmarks.scale import Scale

SCRIPT = Path(__file__).with_name("rows.py")
QUICK = ("--rounds", "3", "--lengths", "64", "1024", "32768")


def _goals(line: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the goals of a line, each with the number that counts: "share" or "ratio"."""
    name, row = line["map"], line["row"]
    if line["ratio"] is None:  # measured without a peer, for the table of rows.py alone
        return
    if name in {"softmax", "log_softmax"}:
        yield "rows/softmax" if row >= 1024 else "rows/softmax/short", "share"
        yield "rows/softmax/torch", "ratio"
    elif name == "logsumexp":
        yield "rows/logsumexp", "share"
        if row >= 4096:
            yield "rows/logsumexp/torch", "ratio"
    elif name in {"sparsemax", "entmax15"}:
        yield "rows/threshold", "ratio"


def read(results: dict[str, Any]) -> Iterator[Measurement]:
    """Yield measurements of goals from what rows.py has written."""
    for line in results["lines"]:
        for goal, field in _goals(line):
            seconds, reached = line["seconds"], line[field]
            case = f"{line['map']}, rows of {line['row']}"
            yield Measurement(goal, case, reached, seconds=seconds, peer_seconds=seconds * reached, limited_by="bytes")


def rows(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Yield what rows.py measures."""
    del limits
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, str(SCRIPT), "--json", str(path), *(QUICK if scale.name == "quick" else ())]
        done = subprocess.run(command, check=False, stdout=2)  # noqa: S603 - our own script
        if done.returncode != 0 or not path.exists():
            print(f"{SCRIPT.name} --json failed; its goals are not measured", file=sys.stderr)
            return
        yield from read(json.loads(path.read_text(encoding="utf-8")))
