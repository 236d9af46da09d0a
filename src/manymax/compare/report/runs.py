"""Run folders into one set of results: read, checked against each other, and merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymax.compare.plan_file import PLAN_NAME
from manymax.compare.results import RESULTS_NAME, Line, latest, read

JOINED = ("candidates", "crossover")  # of the metrics of speed and length: one entry a candidate
# What may differ between runs that answer the same question; any other difference makes them two questions.
FREE = {"seeds", "budget_seconds", "command", "candidates"}


@dataclass(frozen=True)
class Runs:
    """One run, or several merged.

    Attributes:
        folders: where they lie.
        plan: the first run's plan with the candidates and seeds of all.
        lines: the last line of each job, by job name.
        commands: the command of each run.
    """

    folders: list[Path]
    plan: dict[str, Any]
    lines: dict[str, Line]
    commands: list[str]

    @property
    def baseline(self) -> str:
        """Return the name that the others are compared with."""
        return str(self.plan["baseline"])

    @property
    def seeds(self) -> list[int]:
        """Return the planned seeds."""
        return list(self.plan["seeds"])

    @property
    def names(self) -> list[str]:
        """Return the candidates' names, baseline first, then in the plan's order."""
        names = [candidate["name"] for candidate in self.plan["candidates"]]
        return [self.baseline, *(name for name in names if name != self.baseline)]

    def train(self, name: str) -> dict[int, Line]:
        """Return a candidate's training jobs that ended, by seed."""
        mine = (line for line in self.lines.values() if line["kind"] == "train" and line["candidate"] == name)
        return {line["seed"]: line for line in sorted(mine, key=lambda line: line["seed"])}

    def single(self, kind: str) -> Line | None:
        """Return the job that measures all candidates in one go ("speed" or "length"), if it ended."""
        return next((line for line in self.lines.values() if line["kind"] == kind), None)

    def metrics(self, kind: str) -> dict[str, Any]:
        """Return what such a job measured; nothing if it has not ended or failed."""
        line = self.single(kind)
        return (line.get("metrics") or {}) if line else {}

    def part(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what such a job says about a candidate, if it does."""
        return (self.metrics(kind).get("candidates") or {}).get(name)

    @property
    def shared_jobs(self) -> tuple[str, ...]:
        """Return the kinds of jobs that measure all candidates in one go: over length only attention is measured."""
        return ("speed", "length") if self.plan["site"] == "attention" else ("speed",)

    @property
    def missing(self) -> list[str]:
        """Return what has not run yet, in words."""
        waiting = [f"{name}, seed {seed}" for seed in self.seeds for name in self.names if seed not in self.train(name)]
        return waiting + [kind for kind in self.shared_jobs if self.single(kind) is None]


def load(folders: Sequence[Path]) -> Runs:
    """Read run folders and merge them.

    A training that several runs hold counts once, as the last folder given has it. Speed and length are joined
    candidate by candidate, the last folder's again where several have them, under the larger noise floor.

    Raises:
        FileNotFoundError: if a folder holds no plan.
        ValueError: if no job has ended, or the plans ask different questions.
    """
    if not folders:
        raise ValueError("run_dirs: expected at least one run folder, got none")
    plans = [_read_plan(folder) for folder in folders]
    for folder, plan in zip(folders[1:], plans[1:], strict=True):
        _check_same(folders[0], plans[0], folder, plan)
    found = [latest(read(folder / RESULTS_NAME)) for folder in folders]
    lines = {job: line for one in found for job, line in one.items()}
    lines |= {
        job: _joined([one[job] for one in found if job in one]) for job in lines if lines[job]["candidate"] is None
    }
    if not lines:
        where = ", ".join(str(folder) for folder in folders)
        raise ValueError(f"{where}: no job has ended yet, so there is nothing to report")
    candidates = {candidate["name"]: candidate for plan in plans for candidate in plan["candidates"]}
    seeds = sorted({seed for plan in plans for seed in plan["seeds"]})
    merged = {**plans[0], "candidates": list(candidates.values()), "seeds": seeds}
    return Runs(list(folders), merged, lines, [plan["command"] for plan in plans])


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / PLAN_NAME
    if not path.exists():
        raise FileNotFoundError(f"{folder}: not a run of manymax compare, it holds no {PLAN_NAME}")
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    return plan


def _joined(lines: Sequence[Line]) -> Line:
    """Return one line of a job about all candidates that several runs did."""
    measured = [line for line in lines if line.get("metrics")]
    if len(measured) < 2:
        return measured[0] if measured else lines[-1]
    metrics = [line["metrics"] for line in measured]
    if any(one.get("lengths") != metrics[-1].get("lengths") for one in metrics):
        return measured[-1]
    joined = {key: {k: v for one in metrics for k, v in one[key].items()} for key in JOINED if key in metrics[-1]}
    noise = max(one["noise_floor"] for one in metrics)
    return {**measured[-1], "metrics": {**metrics[-1], **joined, "noise_floor": noise}}


def _check_same(first: Path, one: dict[str, Any], second: Path, two: dict[str, Any]) -> None:
    """Raise unless two plans ask the same question, so that their seeds may be pooled."""
    for key in sorted((one.keys() | two.keys()) - FREE):
        if one.get(key) != two.get(key):
            raise ValueError(
                f"{second}: cannot be merged with {first}: {key} is {two.get(key)!r} there and {one.get(key)!r} here"
            )
    options = {candidate["name"]: candidate.get("options", {}) for candidate in one["candidates"]}
    for candidate in two["candidates"]:
        name, given = candidate["name"], candidate.get("options", {})
        if name in options and options[name] != given:
            raise ValueError(
                f"{second}: cannot be merged with {first}: {name} has options {given!r} there, {options[name]!r} here"
            )
