"""A run: calibrate, train, measure, and write every line; started again, it goes on where it stopped."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymax.compare import budget, jobs, results
from manymax.compare.clockwork import Clockwork
from manymax.compare.executors import Executor
from manymax.compare.jobs import Job, Order
from manymax.compare.plan import Plan
from manymax.compare.progress import Display, clock
from manymax.compare.results import Line
from manymax.compare.session import Session, work_through
from manymax.compare.state import State, calibrated

TRAINED = ("ok", "diverged")  # a model that diverged can still be timed


@dataclass
class Runner:
    """Does a plan's jobs and stores their lines.

    Attributes:
        plan: what to do.
        folder: where the run's files go.
        executor: who does the jobs.
        display: who is told.
        threads: torch's threads in a training, and in a job that runs alone.
        retry: do jobs again that have failed.
    """

    plan: Plan
    folder: Path
    executor: Executor
    display: Display
    threads: tuple[int, int] = (1, 1)
    retry: bool = False

    def run(self, command: str) -> None:
        """Do what is not done yet.

        Args:
            command: the command line, for the report.

        Raises:
            ValueError: if the plan cannot be run, or the folder holds another one.
            OSError: if the disk is full; all finished jobs are stored.
        """
        try:
            state = State.load(self.folder, self.plan) or self._calibrate()
            state.save(self.folder, self.plan, command)
            self._work(state)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                f"the disk is full at {self.folder}; every finished job is kept; free some space and go on with: "
                f"manymax compare {self.folder}"
            ) from error
        finally:
            self.display.stop()

    def _calibrate(self) -> State:
        """Try every candidate for a moment; a mistake in the plan ends the run here, before anything is stored."""
        self.display.say("calibrating: a few steps of every candidate")
        limits = {
            "allowance": budget.allowance(self.plan, "calibrate"),
            "timeout": self.plan.timeout or budget.CALIBRATION_TIMEOUT,
        }
        lines: list[Line] = []
        orders = [self._order(job, **limits) for job in jobs.calibrations(self.plan)]
        work_through(self.executor, orders, lines.append)
        state = calibrated(self.plan, lines, self.executor.slots)
        seconds = budget.training_seconds(self.plan, state.costs, self.executor.slots, state.steps)
        over = self.plan.steps is None and seconds > budget.TRAINING * self.plan.budget
        self.display.say(
            f"{state.steps} steps for each training; all of them take about {clock(seconds)}"
            + (", more than the budget holds" if over else "")
        )
        return state

    def _work(self, state: State) -> None:
        """Train and then measure; a job that has a line already is left out."""
        store = results.Store(self.folder)
        try:
            lines = results.latest(results.read(store.path))
            trainings, measurements = jobs.trainings(self.plan), jobs.measurements(self.plan)
            waiting = [job for job in trainings if self._waits(job, lines)]
            again = bool(waiting) and self.retry
            measuring = [job for job in measurements if again or self._waits(job, lines)]
            clockwork = Clockwork(self.plan, state, self.executor.slots, [*waiting, *measuring])
            total = len(trainings) + len(measurements)
            finished = total - len(waiting) - len(measuring)
            self.display.start(total, finished, state.facts["quality"]["name"])
            session = Session(self.executor, self.display, store, lines, clockwork)
            self._train(waiting, state, session)
            for job in measuring:
                self._measure(job, session)
        finally:
            store.close()

    def _waits(self, job: Job, lines: dict[str, Line]) -> bool:
        return job.name not in lines or (self.retry and lines[job.name]["status"] != "ok")

    def _train(self, waiting: list[Job], state: State, session: Session) -> None:
        """Train; a candidate that failed in calibration gets that status for every seed, unless this is a retry."""
        orders = []
        for job in waiting:
            failure = state.failures.get(str(job.candidate))
            if failure and not self.retry:
                session.keep(jobs.line(job, failure["status"], f"in calibration: {failure['message']}"))
            else:
                timeout = budget.timeout(self.plan, session.clockwork.expected(job))
                orders.append(self._order(job, steps=state.steps, timeout=timeout))
        session.do(orders)

    def _measure(self, job: Job, session: Session) -> None:
        """Do a job that measures all candidates, leaving out those that could not be trained."""
        failures = self._untrained(session.lines)
        if self.plan.baseline in failures:
            message = f"nothing to measure against: {self.plan.baseline} was not trained"
            session.keep(jobs.line(job, "unsupported", message))
            return

        def complete(line: Line) -> None:
            if line["metrics"]:
                line["metrics"]["candidates"].update(failures)
            session.keep(line)

        seconds = budget.allowance(self.plan, job.kind)
        candidates = [label for label in self.plan.labels if label not in failures]
        timeout = budget.timeout(self.plan, seconds)
        order = self._order(job, candidates=candidates, allowance=seconds, timeout=timeout, threads=self.threads[1])
        session.do([order], complete)

    def _untrained(self, lines: dict[str, Line]) -> dict[str, dict[str, Any]]:
        """Return status and message of the candidates that no seed could train."""
        failures: dict[str, dict[str, Any]] = {}
        for label in self.plan.labels:
            mine = [lines[Job("train", label, seed).name] for seed in self.plan.seeds]
            if not any(line["status"] in TRAINED for line in mine):
                failures[label] = {"status": mine[0]["status"], "message": mine[0]["message"]}
        return failures

    def _order(self, job: Job, **details: Any) -> Order:
        """Return the order of a job; all but calibrations have a log in the run's folder."""
        if job.kind != "calibrate":
            logs = self.folder / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            details["log"] = str(logs / f"{job.name.replace('/', '-').replace(':', '-')}.txt")
        return Order(self.plan.as_mapping(), **vars(job), **{"threads": self.threads[0], **details})


def counts(folder: Path, plan: Plan) -> tuple[int, int]:
    """Return how many jobs of the plan are finished, and how many there are."""
    names = {job.name for job in (*jobs.trainings(plan), *jobs.measurements(plan))}
    done = results.latest(results.read(folder / results.RESULTS_NAME))
    return len(names & done.keys()), len(names)
