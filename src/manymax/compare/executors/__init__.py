"""Who does the jobs: processes on this machine, or a Dask cluster. The runner knows this interface alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from manymax.compare.jobs import Order
from manymax.compare.results import Line


@dataclass(frozen=True)
class Progress:
    """A job is under way; `share` of it, from 0 to 1, is done."""

    order: Order
    share: float


@dataclass(frozen=True)
class Done:
    """A job has ended, well or not: the line's status says."""

    order: Order
    line: Line


class Executor(Protocol):
    """Takes orders and reports on them."""

    slots: int
    """How many jobs run at once; the runner submits no more."""

    def submit(self, order: Order) -> None:
        """Start a job."""

    def wait(self, seconds: float) -> list[Progress | Done]:
        """Return what happened; wait up to `seconds` for something to happen."""

    def close(self) -> None:
        """Stop what still runs, at once."""


def create(address: str | None, workers: int) -> Executor:
    """Return the executor of an address.

    Args:
        address: "dask://HOST:PORT", or None for processes on this machine.
        workers: processes on this machine at once.

    Raises:
        ValueError: if the address is of no known kind.
    """
    # The executors import this module, and one of them an optional package.
    if address is None:
        from manymax.compare.executors.local import LocalExecutor  # noqa: PLC0415

        return LocalExecutor(workers)
    if address.startswith("dask://") and address.removeprefix("dask://"):
        from manymax.compare.executors.dask import DaskExecutor  # noqa: PLC0415

        return DaskExecutor(address.removeprefix("dask://"))
    raise ValueError(f"executor: expected dask://HOST:PORT, got {address!r}")
