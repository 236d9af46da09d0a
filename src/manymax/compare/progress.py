"""How a run shows itself: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

from manymax._extras import require
from manymax.compare.results import Line


class Display(Protocol):
    """What the runner tells about a run."""

    def start(self, total: int, finished: int, quality: str) -> None:
        """Announce how many jobs there are, how many a former run has finished, and what quality is called."""

    def running(self, shares: dict[str, float], left: float | None) -> None:
        """Show the jobs that run with the share that is done, and the seconds left in all."""

    def ended(self, line: Line) -> None:
        """Show that a job has ended."""

    def say(self, text: str) -> None:
        """Print a line."""

    def stop(self) -> None:
        """Leave the terminal as it was."""


def clock(seconds: float) -> str:
    """Return minutes and seconds, or hours too: 3:05, 1:02:00."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def outcome(line: Line, quality: str = "") -> str:
    """Return what became of a job in a few words."""
    text = f"{line['job']}: {line['status']}"
    if line["status"] != "ok":
        return f"{text} ({line['message']})" if line["message"] else text
    value = line["metrics"].get("quality")
    shown = f", {value:.4g} {quality}".rstrip() if isinstance(value, float) else ""
    return f"{text} after {line['seconds']:.1f} s{shown}"


class PlainDisplay:
    """One line for each job that ends; for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._quality = ""
        self._stream = stream or sys.stdout
        self._total = self._ended = 0
        self._left: float | None = None

    def start(self, total: int, finished: int, quality: str) -> None:
        """Announce the jobs."""
        self._quality = quality
        self._total, self._ended = total, finished
        if finished:
            self.say(f"{finished} of {total} jobs are finished already")

    def running(self, shares: dict[str, float], left: float | None) -> None:
        """Remember the time left for the next line."""
        del shares
        self._left = left

    def ended(self, line: Line) -> None:
        """Print the job's line."""
        self._ended += 1
        left = "" if self._left is None else f"; about {clock(self._left)} left"
        self.say(f"[{self._ended}/{self._total}] {outcome(line, self._quality)}{left}")

    def say(self, text: str) -> None:
        """Print a line at once, also into a pipe."""
        print(text, file=self._stream, flush=True)

    def stop(self) -> None:
        """Do nothing: a plain line leaves nothing behind."""


class LiveDisplay:
    """A bar for the whole run and one for each job that runs, redrawn in place."""

    def __init__(self, console: Any = None) -> None:
        rich = require("rich.progress", "compare")
        columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TextColumn("{task.fields[note]}"))
        self._progress = rich.Progress(*columns, console=console, transient=True)
        self._whole = self._progress.add_task("all jobs", total=None, note="")
        self._bars: dict[str, Any] = {}
        self._total = self._ended = 0
        self._failed = 0
        self._end: float | None = None

    def start(self, total: int, finished: int, quality: str) -> None:
        """Draw the bar of the whole run."""
        del quality
        self._total, self._ended = total, finished
        self._progress.update(self._whole, total=total, completed=finished)
        self._progress.start()
        self._note({})

    def running(self, shares: dict[str, float], left: float | None) -> None:
        """Redraw."""
        self._end = None if left is None else time.monotonic() + left
        for name in set(self._bars) - set(shares):
            self._progress.remove_task(self._bars.pop(name))
        for name, share in shares.items():
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(f"  {name}", total=1.0, note="")
            self._progress.update(self._bars[name], completed=share, note=f"{100 * share:3.0f} %")
        self._note(shares)

    def _note(self, shares: dict[str, float]) -> None:
        left = "" if self._end is None else f", {clock(self._end - time.monotonic())} left"
        failed = f", {self._failed} failed" if self._failed else ""
        note = f"{self._ended} of {self._total}{failed}{left}"
        self._progress.update(self._whole, completed=self._ended + sum(shares.values()), note=note)

    def ended(self, line: Line) -> None:
        """Count the job; one that failed stays on the screen with its reason."""
        self._ended += 1
        if line["status"] != "ok":
            self._failed += 1
            self.say(outcome(line))

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Take the bars away."""
        self._progress.stop()


def create() -> Display:
    """Return the display that fits where stdout goes."""
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()
