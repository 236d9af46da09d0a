"""Where a number was measured: goes into every line of results."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from manymax import __version__


def environment(dtype: str = "float32", device: str = "cpu") -> dict[str, Any]:
    """Return commit, versions, processor, torch's threads, dtype and platform."""
    import torch  # noqa: PLC0415 - the command line reads results without it

    return {
        "commit": commit(),
        "manymax": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "platform": platform.platform(terse=True),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the commit of the source that runs, with "+changes" if it was edited since, or "" outside a repository."""
    package = Path(__file__).parent
    # An installed package may lie in somebody else's repository; only one that tracks this file is ours.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    head = _git(package, "rev-parse", "--short=12", "HEAD") or ""
    return head + ("+changes" if _git(package, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
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
