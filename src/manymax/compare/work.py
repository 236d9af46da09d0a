"""Does one order, in the process that was started for it; everything here may load torch."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from manymax._environment import environment
from manymax.compare import calibrate, check, jobs, length, speed, train
from manymax.compare.jobs import Order
from manymax.compare.outcome import of_error
from manymax.compare.reading import from_mapping
from manymax.compare.results import Line
from manymax.compare.state import MISTAKE
from manymax.compare.subject import Subject

KINDS: dict[str, Callable[[Order, Subject, Callable[[float], None]], dict[str, Any]]] = {
    "calibrate": calibrate.perform,
    "check": check.perform,
    "train": train.perform,
    "speed": speed.perform,
    "length": length.perform,
}


def machine(order: Order) -> dict[str, Any]:
    """Return what is known of the machine, once torch is set up for the order."""
    torch.set_num_threads(order.threads)
    return environment(order.plan["dtype"], order.plan["device"])


def perform(order: Order, tell: Callable[[float], None]) -> Line:
    """Do an order; whatever it raises becomes the status of its line.

    Args:
        order: what to do.
        tell: is called with the share that is done, from 0 to 1.
    """
    began = time.monotonic()
    surroundings = machine(order)
    result: dict[str, Any] = {"status": "ok"}
    try:
        _limit_memory(order.plan["memory"])
        result |= KINDS[order.kind](order, _subject(order), tell)
    except _MistakeError as error:
        result = {"status": MISTAKE, "message": str(error)}
    except Exception as error:  # noqa: BLE001  (a job never stops the others)
        sys.excepthook(type(error), error, error.__traceback__)  # into the job's log
        status, message = of_error(error)
        result = {"status": status, "message": message}
    return jobs.line(order.job, seconds=time.monotonic() - began, environment=surroundings, **result)


class _MistakeError(Exception):
    """The plan is wrong, not the candidate."""


def _subject(order: Order) -> Subject:
    """Make the plan real; before anything is stored also check what the user wrote."""
    try:
        subject = Subject(from_mapping(order.plan))
        if order.kind in ("calibrate", "check"):
            check.mistakes(subject, str(order.candidate))
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise _MistakeError(str(error)) from error
    return subject


def _limit_memory(limit: int | None) -> None:
    """Let the process take so many bytes beyond what it has."""
    if limit is None:
        return
    if sys.platform != "linux":
        raise ValueError("memory: only Linux can limit it")
    import resource  # noqa: PLC0415  (Unix only)

    data = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (data + limit, data + limit))


def main() -> None:
    """Read an order from stdin and write its line to stdout, for executors on other machines."""
    line = perform(Order(**json.load(sys.stdin)), lambda _: None)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
