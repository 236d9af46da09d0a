"""Jobs as separate processes of this machine: whatever one of them does, the others and the run go on."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from manymax.compare import jobs
from manymax.compare.executors import Done, Progress
from manymax.compare.jobs import Order

WORK = "manymax.compare.work"
# A fork server imports torch once and every job is a copy of it: 10 ms instead of the 2 s of a fresh import. Windows
# has none.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@dataclass
class _Running:
    order: Order
    process: BaseProcess
    connection: Connection
    started: float = field(default_factory=time.monotonic)
    environment: dict[str, Any] = field(default_factory=dict)
    done: Done | None = None

    @property
    def deadline(self) -> float:
        return float("inf") if self.order.timeout is None else self.started + self.order.timeout


class LocalExecutor:
    """Runs each job in a process of its own.

    Attributes:
        slots: how many at once.
        work: the module whose `machine` and `perform` the processes call.
    """

    def __init__(self, workers: int, work: str = WORK) -> None:
        self.slots, self.work = workers, work
        self._context: Any = multiprocessing.get_context(_METHOD)
        if _METHOD == "forkserver":
            self._context.set_forkserver_preload([work])
            _start_server()
        self._running: list[_Running] = []

    def submit(self, order: Order) -> None:
        """Start a process for the job."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_child, args=(theirs, order, self.work), daemon=True)
        with _held():
            process.start()
            theirs.close()
            self._running.append(_Running(order, process, ours))

    def wait(self, seconds: float) -> list[Progress | Done]:
        """Return news of the jobs, and stop those that are over their time."""
        soonest = min((one.deadline for one in self._running), default=float("inf")) - time.monotonic()
        ready = set(wait([one.connection for one in self._running], max(0.0, min(seconds, soonest))))
        events: list[Progress | Done] = []
        for one in list(self._running):
            if one.connection in ready:
                events += self._receive(one)
            if one.done is None and time.monotonic() > one.deadline:
                one.process.kill()
                self._end(one, "timeout", f"stopped after {one.order.timeout:g} s")
            if one.done is not None:
                events.append(one.done)
                self._running.remove(one)
                one.process.join()
                one.connection.close()
                _tidy(one.order)
        return events

    def _receive(self, one: _Running) -> list[Progress | Done]:
        """Take what the process has sent; the end of the pipe without a line means that it died."""
        events: list[Progress | Done] = []
        try:
            while one.done is None and one.connection.poll():
                what, value = one.connection.recv()
                if what == "share":
                    events.append(Progress(one.order, value))
                elif what == "environment":
                    one.environment = value
                elif what == "failure":
                    self._end(one, "crashed", value + _see(one.order))
                else:
                    one.done = Done(one.order, value)
        except (EOFError, OSError):
            one.process.join()
            self._end(one, "crashed", _death(one.process.exitcode) + _see(one.order))
        return events

    def _end(self, one: _Running, status: str, message: str) -> None:
        seconds = time.monotonic() - one.started
        line = jobs.line(one.order.job, status, message, seconds=seconds, environment=one.environment)
        one.done = Done(one.order, line)

    def close(self) -> None:
        """Kill the processes that still run; they hold nothing that is worth a farewell."""
        for one in self._running:
            one.process.kill()
        for one in self._running:
            one.process.join()
            one.connection.close()
        self._running.clear()


@contextmanager
def _held() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends, whichever thread gets the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *given: pressed.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(*pressed[0])


def _start_server() -> None:
    """Start the fork server with Ctrl-C blocked, which would end its imports with a traceback."""
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415  # Windows has none

    resource_tracker.ensure_running()  # which unblocks it when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int | None) -> str:
    """Return how a process ended, from its exit code."""
    if code is None or code >= 0:
        return f"the process ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"


def _see(order: Order) -> str:
    return f"; see {order.log}" if order.log else ""


def _tidy(order: Order) -> None:
    """Remove a log with nothing in it."""
    if order.log and Path(order.log).exists() and not Path(order.log).stat().st_size:
        Path(order.log).unlink()


def _child(connection: Connection, order: Order, work: str) -> None:
    """Do the job in its own process and send the line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides
    _print_to(order.log)
    faulthandler.enable()
    threading.Thread(target=_follow_parent, args=(connection,), daemon=True).start()
    try:
        module = import_module(work)
        connection.send(("environment", module.machine(order)))
        line = module.perform(order, lambda share: connection.send(("share", share)))
    except Exception as error:
        connection.send(("failure", f"{type(error).__name__}: {error}"))
        raise  # into the log
    connection.send(("line", line))


def _print_to(log: str | None) -> None:
    """Send what the job prints into its log: the terminal belongs to the progress display."""
    descriptor = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _follow_parent(connection: Connection) -> None:
    """End this process when the parent is gone, even if it was killed: then the pipe ends."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)
