"""Output layers over the number of classes: time and memory of a training step, weights updated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from manymax.bench.contender import CONTROL_SHARE, TOLERANCE, Case, Row
from manymax.bench.layers import HeadProblem, Step, Trainer
from manymax.bench.rounds import sample, timed
from manymax.compare.memory import peak_memory
from manymax.compare.outcome import of_error
from manymax.compare.rounds import noise_floor, speed_ratio


@dataclass
class HeadRow(Row):
    """A trainer's results.

    Attributes:
        peak_bytes: memory that a step takes at its peak beyond what the layer holds between steps.
    """

    peak_bytes: int | None = None


def _error(trainer: Trainer, loss: Tensor, problem: HeadProblem) -> float:
    """Return how far, relative, the first step's loss is from the formula over a few tokens' scores at a time."""
    if trainer.exact is None:
        return 0.0 if bool(torch.isfinite(loss)) else float("inf")
    (x, target), weight = problem.batch(), problem.weight
    few = max(1, 2**24 // problem.classes)
    parts = zip(torch.split(x.detach(), few), torch.split(target, few), strict=True)
    exact = torch.cat([trainer.exact((part @ weight.T).double(), own) for part, own in parts]).mean()
    return float((loss - exact).abs() / exact.abs())


def _prepared(trainer: Trainer, problem: HeadProblem) -> tuple[HeadRow, Step | None]:
    """Make a layer, check its first step and measure the memory of its second."""
    row = HeadRow(trainer.name, trainer.head, trainer.backend)
    try:
        step = trainer.make(problem)
        error = _error(trainer, step(), problem)
        with peak_memory(problem.device) as peak:
            step()
    except Exception as raised:  # noqa: BLE001  (whatever a layer does, the others are timed)
        row.status, row.message = of_error(raised)
        return row, None
    row.peak_bytes = peak.bytes
    if not error <= TOLERANCE[torch.float32]:
        row.status, row.message = "differs", f"loss {error:.1e} from the formula, relative; not timed"
        return row, None
    return row, step


def run_heads(problem: HeadProblem, entrants: Sequence[Trainer], seconds: float) -> Case:
    """Check and time layers on one problem.

    Args:
        problem: the batch and the number of classes.
        entrants: the first one is the baseline; if it fails, the others have times and no ratios.
        seconds: for all rounds together.
    """
    prepared = [_prepared(entrant, problem) for entrant in entrants]
    sound = [(row, sample(step, problem.device)) for row, step in prepared if step is not None]
    if not sound:
        return Case([row for row, _ in prepared], None, 0)
    measured = timed([one for _, one in sound], (1 - CONTROL_SHARE) * seconds, problem.device)
    rows = [row for row, _ in prepared]
    floor = None
    if rows[0].status == "ok":
        floor = noise_floor(*timed([sound[0][1]] * 2, CONTROL_SHARE * seconds, problem.device))
    for (row, _), own in zip(sound, measured, strict=True):
        row.seconds = median(own)
        row.speed = None if floor is None else speed_ratio(measured[0], own)
    return Case(list(rows), floor, len(measured[0]))


def lines(cases: Sequence[tuple[int, Case]], key: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each layer's name and its (classes, value) pairs, as far as measured.

    Args:
        cases: numbers of classes, each with its rows; the same layers in all of them.
        key: "seconds" or "peak_bytes".
    """
    for index, first in enumerate(cases[0][1].rows):
        values = [(classes, getattr(case.rows[index], key)) for classes, case in cases]
        by = f"{first.map} ({first.backend or first.name})"
        yield by, [(classes, value) for classes, value in values if value is not None]
