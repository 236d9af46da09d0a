"""What a measurement leaves behind: lines of JSON, each with the machine and the versions that it was made with."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from manymax import __version__

Record = dict[str, Any]


def environment(dtype: str = "float32") -> Record:
    """Return what a number depends on besides its setting: code, versions, machine, torch's threads and dtype."""
    import torch  # noqa: PLC0415 - the command line reads records without it

    return {
        "commit": commit(),
        "manymax": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "platform": platform.platform(terse=True),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the commit of the source that runs, with "+changes" if it was edited since, or "" outside a repository."""
    # An installed package may lie in somebody else's repository; only one that tracks this package is ours.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    return (_git("rev-parse", "--short=12", "HEAD") or "") + ("+changes" if _git("status", "--porcelain", ".") else "")


def _git(*arguments: str) -> str | None:
    """Run git where the package lies; None if that fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@lru_cache(maxsize=1)
def processor() -> str:
    """Return the processor's name as its maker writes it; `platform.processor()` is empty on Linux."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for row in information.read_text(encoding="utf-8").splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def plain(value: Any) -> Any:
    """Spell numbers that JSON has no word for as "nan", "inf" and "-inf", which `float()` reads back."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def append_record(path: Path, record: Record) -> None:
    """Add one line and wait until it is on disk; a line cut off earlier is ended first, so that it spoils no other.

    Raises:
        OSError: if the disk is full; the lines before stay whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(plain(record), allow_nan=False).encode() + b"\n"
    with path.open("ab+") as file:
        size = file.tell()
        if size:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> list[Record]:
    """Return the lines of a file, oldest first; none if there is no file. Lines that were cut off are left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def write_whole(path: Path, text: str) -> None:
    """Write a file that is either the old one or the new one, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
