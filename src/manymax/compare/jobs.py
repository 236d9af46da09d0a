"""The jobs of a plan: one training a candidate and seed, then one speed job, then one length job."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from manymax.compare.plan import Plan
from manymax.compare.results import Line


@dataclass(frozen=True)
class Job:
    """A piece of work that a process of its own does; `name` is its key in the results.

    Attributes:
        kind: "train", "speed", "length", or "calibrate", whose result goes into plan.json.
        candidate: the candidate's label, or None for a job about all of them.
        seed: the training's seed, or None.
    """

    kind: str
    candidate: str | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Return the job's key: "train/softmax/0", "speed", "length"."""
        return "/".join(str(part) for part in (self.kind, self.candidate, self.seed) if part is not None)


@dataclass(frozen=True)
class Order:
    """A job with all that a process needs to do it; goes through pickle, and through JSON to other machines.

    Attributes:
        plan: `Plan.as_mapping()`.
        kind: as the job's.
        candidate: as the job's.
        seed: as the job's.
        steps: optimiser steps of a training.
        threads: torch's threads.
        allowance: seconds that a speed, length or calibration job should fill.
        timeout: seconds after which it is stopped.
        candidates: labels that a speed or length job measures, the baseline first.
        log: file for what the job prints; None is nowhere.
    """

    plan: dict[str, Any]
    kind: str
    candidate: str | None = None
    seed: int | None = None
    steps: int = 0
    threads: int = 1
    allowance: float = 0.0
    timeout: float | None = None
    candidates: list[str] = field(default_factory=list)
    log: str | None = None

    @property
    def job(self) -> Job:
        """Return the job that is ordered."""
        return Job(self.kind, self.candidate, self.seed)


def line(
    job: Job,
    status: str,
    message: str = "",
    *,
    seconds: float = 0.0,
    environment: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    curves: dict[str, Any] | None = None,
) -> Line:
    """Return the job's line of the results."""
    return {
        "job": job.name,
        "kind": job.kind,
        "candidate": job.candidate,
        "seed": job.seed,
        "status": status,
        "message": message,
        "seconds": seconds,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment or {},
        "metrics": metrics or {},
        "curves": curves or {},
    }


def calibrations(plan: Plan) -> list[Job]:
    """Return the jobs that find out how long a step takes."""
    return [Job("calibrate", label) for label in plan.labels]


def trainings(plan: Plan) -> list[Job]:
    """Return the training jobs, seed by seed, so that an early look at the results finds every candidate."""
    return [Job("train", label, seed) for seed in plan.seeds for label in plan.labels]


def measurements(plan: Plan) -> list[Job]:
    """Return the jobs that run alone, after training; over length only attention is measured."""
    return [Job("speed"), Job("length")] if plan.site == "attention" else [Job("speed")]
