"""How far the runs are and how long they still take: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from manymax._records import Record
from manymax.claims.runner import Run

SECONDS_BETWEEN_LINES = 15.0


class Clock:
    """Time left, from the minutes that the claims state, scaled by how fast this machine has proved to be."""

    def __init__(self, runs: Sequence[Run], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun = now()
        self.total = 60 * sum(run.minutes for run in runs)
        self.done = 0.0  # stated seconds of what is done, the present run's share included
        self._before = 0.0
        self._run = 0.0

    def start(self, run: Run) -> None:
        """Go on to the next run."""
        self._before += self._run
        self._run = 60 * run.minutes
        self.done = self._before

    def advance(self, share: float) -> None:
        """Take note of the share of the present run that is done."""
        self.done = self._before + min(max(share, 0.0), 1.0) * self._run

    def left(self) -> float:
        """Return the seconds that are left."""
        spent = self._now() - self._begun
        # The stated minutes count like 20 s of experience, so that the first second does not decide alone.
        pace = (spent + 20) / (self.done + 20)
        return (self.total - self.done) * pace


def spell(seconds: float) -> str:
    """Return a time as one would say it.

    Example:
        >>> spell(40), spell(400)
        ('40 s', '7 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Lines:
    """Progress as plain lines, for a log or a pipe."""

    def __init__(self, runs: Sequence[Run], write: Callable[[str], None], now: Callable[[], float]) -> None:
        self._clock = Clock(runs, now)
        self._runs = {id(run): number for number, run in enumerate(runs, 1)}
        self._write = write
        self._now = now
        self._last = now()
        self._title = ""

    def started(self, run: Run) -> None:
        """Name the run."""
        self._clock.start(run)
        self._title = f"[{self._runs[id(run)]}/{len(self._runs)}] {run}"
        self._write(f"{self._title}: started, about {spell(self._clock.left())} left for all")

    def advanced(self, share: float, doing: str) -> None:
        """Write a line if the last one is a while ago."""
        self._clock.advance(share)
        if self._now() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = self._now()
            self._write(f"{self._title}: {share:.0%}, {doing}, about {spell(self._clock.left())} left for all")

    def finished(self, run: Run, record: Record) -> None:
        """Write how the run ended."""
        del run
        self._clock.advance(1.0)
        self._last = self._now()
        self._write(f"{self._title}: {ending(record)}")


class Bars:
    """Progress as two live bars, for all runs and for the present one."""

    def __init__(self, runs: Sequence[Run], bars: Any) -> None:
        self._clock = Clock(runs)
        self._bars = bars
        self._all = bars.add_task("all", total=self._clock.total, doing="")
        self._one = bars.add_task("", total=1.0, doing="")

    def started(self, run: Run) -> None:
        """Begin the run's bar anew."""
        self._clock.start(run)
        self._bars.reset(self._one, description=str(run), doing="starting")

    def advanced(self, share: float, doing: str) -> None:
        """Move both bars."""
        self._clock.advance(share)
        self._bars.update(self._one, completed=share, doing=doing)
        self._bars.update(self._all, completed=self._clock.done, doing=f"about {spell(self._clock.left())} left")

    def finished(self, run: Run, record: Record) -> None:
        """Leave a line above the bars."""
        self.advanced(1.0, "done")
        self._bars.console.print(f"{run}: {ending(record)}", markup=False, highlight=False)


def ending(record: Record) -> str:
    """Return how a run ended, in words."""
    took = f"after {spell(record['seconds'])}"
    words = {"ok": f"done {took}", "untestable": f"not testable here: {record['message']}"}
    return words.get(record["status"], f"crashed {took}: {record['message']}")


@contextmanager
def shown(runs: Sequence[Run]) -> Iterator[Lines | Bars]:
    """Give a watcher that writes to the terminal, with rich if it is installed, or plain lines."""
    if not (sys.stdout.isatty() and find_spec("rich")):
        yield Lines(runs, lambda line: print(line, flush=True), time.monotonic)
        return
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - optional, and only on a terminal

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} % {task.fields[doing]}"),
    )
    with Progress(*columns) as bars:
        yield Bars(runs, bars)
