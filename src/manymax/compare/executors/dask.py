"""Jobs on a Dask cluster: each still in a process of its own, so that a crash or a time-out costs no worker."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from typing import Any

from manymax._extras import require
from manymax.compare import jobs
from manymax.compare.executors import Done, Progress
from manymax.compare.jobs import Order
from manymax.compare.results import Line


class DaskExecutor:
    """Hands jobs to a Dask scheduler.

    Workers need manymax installed, and any Python plan file and text under the same path.

    Attributes:
        slots: the threads of all workers together.

    Raises:
        ValueError: if nobody answers at the address, or the cluster has no worker.
    """

    def __init__(self, address: str, patience: float = 10.0) -> None:
        self._distributed: Any = require("distributed", "dask")
        try:
            self._client = self._distributed.Client(address, timeout=patience)
        except (OSError, ValueError) as error:
            raise ValueError(f"executor: no Dask scheduler answers at {address} ({error})") from error
        self.slots = sum(self._client.nthreads().values())
        if not self.slots:
            self._client.close()
            raise ValueError(f"executor: the Dask cluster at {address} has no workers")
        self._running: dict[Any, Order] = {}

    def submit(self, order: Order) -> None:
        """Send a job to the cluster."""
        future = self._client.submit(perform_apart, dataclasses.asdict(order), pure=False, key=_key(order))
        self._running[future] = order

    def wait(self, seconds: float) -> list[Progress | Done]:
        """Return the jobs that have ended."""
        if not self._running:
            return []
        try:
            done = self._distributed.wait(list(self._running), timeout=seconds, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return []
        return [Done(order, self._line(future, order)) for future, order in self._take(done)]

    def _take(self, done: set[Any]) -> list[tuple[Any, Order]]:
        return [(future, self._running.pop(future)) for future in done]

    def _line(self, future: Any, order: Order) -> Line:
        """Return the job's line; a future without one has lost its worker."""
        if future.status == "finished":
            line: Line = future.result()
            return line
        reason = repr(future.exception()) if future.status == "error" else future.status
        return jobs.line(order.job, "crashed", f"the Dask worker was lost: {reason}")

    def close(self) -> None:
        """Cancel what still runs and leave the cluster as it is."""
        self._client.cancel(list(self._running))
        self._running.clear()
        self._client.close()


def _key(order: Order) -> str:
    """Return a name for Dask's dashboard, different for each submission."""
    return f"{order.job.name}-{time.time_ns()}"


def perform_apart(given: dict[str, Any]) -> Line:
    """Do an order in a fresh process on this machine and return its line; runs on a worker.

    A worker is a daemonic process, which multiprocessing forbids to have children; a subprocess may.

    Args:
        given: the fields of an `Order`.
    """
    order = Order(**given)
    started = time.monotonic()
    command = [sys.executable, "-m", "manymax.compare.work"]
    try:
        done = subprocess.run(  # noqa: S603
            command, input=json.dumps(given), capture_output=True, text=True, timeout=order.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        status, message = "timeout", f"stopped after {order.timeout:g} s"
    else:
        if done.returncode == 0:
            line: Line = json.loads(done.stdout.splitlines()[-1])
            return line
        last = (done.stderr.strip().splitlines() or [""])[-1]
        status, message = "crashed", f"the process ended with exit code {done.returncode}: {last}"
    return jobs.line(order.job, status, message, seconds=time.monotonic() - started)
