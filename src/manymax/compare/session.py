"""Orders go out, lines come in: the loop that every command shares, and what a run does with each line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from manymax.compare.clockwork import Clockwork
from manymax.compare.executors import Done, Executor
from manymax.compare.jobs import Order
from manymax.compare.progress import Display
from manymax.compare.results import Line, Store

POLL = 0.25  # seconds between two looks at the clock


def work_through(
    executor: Executor,
    orders: Iterable[Order],
    ended: Callable[[Line], None],
    *,
    shown: Callable[[dict[str, float]], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Have orders done, as many at once as the executor takes.

    Args:
        executor: who does them.
        orders: what is done, in this order.
        ended: is called with the line of each.
        shown: is called now and then with the share that is done of each job that runs.
        stopped: once it returns True no further job is started; those that run may end.
    """
    pending = deque(orders)
    shares: dict[str, float] = {}
    while shares or (pending and not stopped()):
        while pending and len(shares) < executor.slots and not stopped():
            executor.submit(pending[0])
            shares[pending.popleft().job.name] = 0.0
        shown(shares)
        for event in executor.wait(POLL):
            if isinstance(event, Done):
                del shares[event.order.job.name]
                ended(event.line)
            else:
                shares[event.order.job.name] = event.share
    shown(shares)


@dataclass
class Session:
    """A run under way.

    Attributes:
        executor: who does the jobs.
        display: who is told.
        store: where the lines go.
        lines: the last line of every job that has one.
        clockwork: how long it will still take.
    """

    executor: Executor
    display: Display
    store: Store
    lines: dict[str, Line]
    clockwork: Clockwork

    def keep(self, line: Line) -> None:
        """Store a job's line and show it."""
        self.clockwork.ended(line)
        self.store.append(line)
        self.lines[line["job"]] = line
        self.display.ended(line)

    def do(self, orders: Iterable[Order], ended: Callable[[Line], None] | None = None) -> None:
        """Have orders done and their lines kept.

        Raises:
            OSError: if the disk is full; what was running has ended and is stored.
        """
        work_through(
            self.executor,
            orders,
            ended or self.keep,
            shown=lambda shares: self.display.running(shares, self.clockwork.left(shares)),
            stopped=lambda: self.store.full is not None,
        )
        if self.store.full is not None:
            raise self.store.full
