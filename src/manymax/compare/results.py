"""RUN/results.jsonl: one line a job, appended and synced when the job ends, so that no interruption loses one."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]

STATUSES = ("ok", "diverged", "out of memory", "unsupported", "timeout", "crashed")
RESULTS_NAME = "results.jsonl"
RESERVE_NAME = ".reserve"
RESERVE_BYTES = 1 << 20  # a line takes 5 to 20 kB: enough for every job that runs when the disk turns out to be full


def finite(value: Any) -> Any:
    """Replace NaN and infinities by None throughout, since JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def read(path: Path) -> list[Line]:
    """Return the lines of a results file; a last line that was cut off is left out.

    Raises:
        ValueError: if a line other than the last is damaged.
    """
    if not path.exists():
        return []
    lines: list[Line] = []
    rows = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            lines.append(json.loads(row))
        except json.JSONDecodeError as error:
            if number == len(rows):
                break
            raise ValueError(f"{path}: line {number} is damaged ({error.msg}); delete it to go on") from error
    return lines


def latest(lines: Iterable[Line]) -> dict[str, Line]:
    """Return the last line of each job: a retry stands behind what it replaces."""
    return {line["job"]: line for line in lines}


class Store:
    """The results file of a run that is under way.

    A reserve of RESERVE_BYTES is held beside it. When the disk is full the reserve is given up for the lines of the
    jobs that are still running; `full` then holds the error.
    """

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / RESULTS_NAME
        self._reserve = run / RESERVE_NAME
        self.full: OSError | None = None
        self._drop_cut_off_line()
        with self._reserve.open("wb") as file:
            file.write(os.urandom(RESERVE_BYTES))  # a file system may store zeros without taking space for them
            _sync(file.fileno())

    def _drop_cut_off_line(self) -> None:
        """Cut the file after its last newline: a line without one was being written when the machine stopped."""
        if self.path.exists():
            data = self.path.read_bytes()
            if not data.endswith(b"\n"):
                os.truncate(self.path, data.rfind(b"\n") + 1)

    def append(self, line: Line) -> None:
        """Write a line so that it survives a crash or, if the disk is full, give up the reserve for it.

        Raises:
            OSError: if there is no room even then; the file ends with its last whole line.
        """
        try:
            self._write(line)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self.full:
                raise
            self._reserve.unlink(missing_ok=True)
            self.full = error
            self._write(line)

    def _write(self, line: Line) -> None:
        data = (json.dumps(finite(line), allow_nan=False) + "\n").encode()
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab", buffering=0) as file:
                written = 0
                while written < len(data):
                    written += file.write(data[written:]) or 0
                _sync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise

    def close(self) -> None:
        """Give the reserve back."""
        self._reserve.unlink(missing_ok=True)


def _sync(descriptor: int) -> None:
    """Make the system write a file out, which is also when some file systems report that they are full."""
    os.fsync(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    beside = path.with_name(path.name + ".part")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(finite(value), file, indent=1, allow_nan=False)
        file.flush()
        _sync(file.fileno())
    beside.replace(path)
