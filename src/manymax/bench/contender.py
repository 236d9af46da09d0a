"""A contender and the row that it gets: first its output is checked, then it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from manymax.bench.rounds import Call, sample, timed
from manymax.compare.outcome import of_error
from manymax.compare.rounds import noise_floor, speed_ratio

# Largest error beside the float64 formula, in units of the largest exact value. It tells a wrong formula from a right
# one and no more: how exact each path is, the tests of the package settle.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
CONTROL_SHARE = 0.2  # of a case's time goes to the A/A control


class Problem(Protocol):
    """The inputs of a case, and what can be said about a right answer."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return what every contender is called with."""

    @property
    def work(self) -> float:
        """Return the bytes or operations that an answer needs at least."""

    @property
    def device(self) -> str:
        """Return where they are."""

    @property
    def backward(self) -> bool:
        """Return whether the gradients of all inputs are part of the work."""

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest error of a part of the output beside that map's float64 formula, relative."""


@dataclass(frozen=True)
class Contender:
    """Something to time; both sides of a ratio make and drop their output in the same way.

    Attributes:
        name: what the table calls it: "manymax", "sdpa", ...
        map: label of the map that it computes, as "entmax:alpha=1.3".
        function: takes the problem's inputs; whatever it raises becomes the row's status.
        backend: what serves it, where that is known.
    """

    name: str
    map: str
    function: Callable[..., Tensor]
    backend: str = ""

    @property
    def key(self) -> str:
        """Return the name that no other contender of the case has."""
        return f"{self.name} {self.map}"


@dataclass
class Row:
    """A contender's results; `seconds`, `speed` and `share` are None unless the status is "ok".

    Attributes:
        seconds: median of one call.
        speed: (low, median, high) of the baseline's time over this one's, paired by round.
        share: of the machine's limit that the work's rate reaches.
    """

    name: str
    map: str
    backend: str
    status: str = "ok"
    message: str = ""
    seconds: float | None = None
    speed: tuple[float, float, float] | None = None
    share: float | None = None


@dataclass(frozen=True)
class Case:
    """The rows of one set of inputs.

    Attributes:
        noise_floor: how far from 1 a ratio of the baseline to itself reached; None if the baseline failed.
        rounds: how many.
    """

    rows: list[Row]
    noise_floor: float | None
    rounds: int


def as_call(contender: Contender, problem: Problem) -> Call:
    """Return a call without arguments that does the contender's work."""
    if not problem.backward:

        def forward() -> None:
            with torch.no_grad():
                contender.function(*problem.inputs)

        return forward
    leaves = [one.detach().requires_grad_() for one in problem.inputs]

    def both() -> None:
        out = contender.function(*leaves)
        torch.autograd.grad(out, leaves, torch.ones_like(out))

    return both


def check(contender: Contender, problem: Problem, call: Call) -> Row:
    """Run a contender once and compare its output; this also compiles and loads what it needs."""
    row = Row(contender.name, contender.map, contender.backend)
    try:
        with torch.no_grad():
            out = contender.function(*problem.inputs)
        error = problem.error(contender.map, out)
        call()
    except Exception as raised:  # noqa: BLE001  (whatever a contender does, the others are timed)
        row.status, row.message = of_error(raised)
        return row
    if not error <= TOLERANCE[out.dtype]:
        row.status, row.message = "differs", f"error {error:.1e} of the largest value beside the formula; not timed"
    return row


def run_case(problem: Problem, contenders: Sequence[Contender], limit: float, seconds: float) -> Case:
    """Check and time contenders on one problem.

    Args:
        problem: the inputs.
        contenders: the first one is the baseline; if it fails, nothing is timed.
        limit: work a second that the machine reaches at most.
        seconds: for all rounds together.
    """
    calls = [as_call(contender, problem) for contender in contenders]
    rows = [check(contender, problem, call) for contender, call in zip(contenders, calls, strict=True)]
    if rows[0].status != "ok":
        for row in rows[1:]:
            if row.status == "ok":
                row.status, row.message = "not timed", "the baseline failed"
        return Case(rows, None, 0)
    device = problem.device
    sound = [(row, sample(call, device)) for row, call in zip(rows, calls, strict=True) if row.status == "ok"]
    control = timed([sound[0][1]] * 2, CONTROL_SHARE * seconds, device)
    measured = timed([one for _, one in sound], (1 - CONTROL_SHARE) * seconds, device)
    for (row, _), own in zip(sound, measured, strict=True):
        row.seconds, row.speed = median(own), speed_ratio(measured[0], own)
        row.share = problem.work / row.seconds / limit
    return Case(rows, noise_floor(*control), len(measured[0]))
