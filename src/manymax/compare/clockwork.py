"""How long a run will still take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manymax.compare import budget
from manymax.compare.jobs import Job
from manymax.compare.plan import Plan
from manymax.compare.results import Line
from manymax.compare.state import State


class Clockwork:
    """Expected seconds of the jobs that are left, corrected by how long the finished ones took.

    Args:
        plan: the plan.
        state: what calibration found.
        slots: trainings that run at once; jobs of other kinds run alone.
        waiting: the jobs to do.
    """

    def __init__(self, plan: Plan, state: State, slots: int, waiting: Iterable[Job]) -> None:
        self._plan, self._state, self._slots = plan, state, slots
        self._waiting = {job.name: job for job in waiting}
        self._expected = self._taken = 0.0

    def expected(self, job: Job) -> float:
        """Return the seconds that a job was planned to take."""
        if job.kind != "train":
            return budget.allowance(self._plan, job.kind)
        cost = self._state.costs.get(str(job.candidate))
        return cost.seconds(self._state.steps) if cost else 0.0

    def ended(self, line: Line) -> None:
        """Take a job off the list; how long a training took corrects what is expected of the others."""
        job = self._waiting.pop(line["job"], None)
        if job is not None and job.kind == "train" and line["seconds"]:
            self._expected += self.expected(job)
            self._taken += line["seconds"]

    def left(self, shares: Mapping[str, float]) -> float:
        """Return the seconds left when of each running job this share is done."""
        drift = self._taken / self._expected if self._expected else 1.0
        total = 0.0
        for job in self._waiting.values():
            parallel, factor = (self._slots, drift) if job.kind == "train" else (1, 1.0)
            total += self.expected(job) * factor * (1 - shares.get(job.name, 0.0)) / parallel
        return total
