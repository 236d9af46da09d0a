"""What a run decided at its start and must keep when it goes on: the number of steps, and what calibration found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymax.compare import budget
from manymax.compare.budget import Cost
from manymax.compare.plan import Plan
from manymax.compare.plan_file import PLAN_NAME
from manymax.compare.results import Line, write_json

STATE_NAME = "state.json"
MISTAKE = "mistake"  # a calibration's status when the plan itself is wrong: a name, an option, a size


@dataclass(frozen=True)
class State:
    """The decisions of a run.

    Attributes:
        steps: optimiser steps of every training.
        costs: seconds of a training, by candidate.
        failures: status and message of the candidates that calibration could not train.
        facts: what the jobs know of the plan: the model's sizes, the task's quality.
    """

    steps: int
    costs: dict[str, Cost]
    failures: dict[str, dict[str, str]]
    facts: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, plan: Plan) -> State | None:
        """Return the decisions of the run in the folder, or None if there is none.

        Raises:
            ValueError: if the folder holds the run of another plan.
        """
        path = folder / STATE_NAME
        if not path.exists():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["hash"] != plan.hash():
            changed = sorted(key for key, value in plan.as_mapping().items() if data["plan"].get(key) != value)
            what = ", ".join(changed) or "Python code"
            raise ValueError(f"out: {folder} holds a run with different {what}; choose another folder")
        costs = {label: Cost(**cost) for label, cost in data["costs"].items()}
        return cls(data["steps"], costs, data["failures"], data["facts"])

    def save(self, folder: Path, plan: Plan, command: str) -> None:
        """Write plan.json, which the report reads, and state.json, which a resumed run reads; keep what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / PLAN_NAME).exists():
            write_json(folder / PLAN_NAME, self._resolved(plan, command))
        if not (folder / STATE_NAME).exists():
            costs = {label: vars(cost) for label, cost in self.costs.items()}
            decisions = {"steps": self.steps, "costs": costs, "failures": self.failures, "facts": self.facts}
            write_json(folder / STATE_NAME, {"hash": plan.hash(), "plan": plan.as_mapping(), **decisions})

    def _resolved(self, plan: Plan, command: str) -> dict[str, Any]:
        candidates = [
            {"name": one.label, "system": one.system, "options": dict(one.options)} for one in plan.candidates
        ]
        return {
            "site": plan.site,
            "candidates": candidates,
            "baseline": plan.baseline,
            "task": plan.task,
            "text": plan.text,
            "seeds": list(plan.seeds),
            "budget_seconds": plan.budget,
            "steps": self.steps,
            "device": plan.device,
            "dtype": plan.dtype,
            **self.facts,
            "command": command,
        }


def calibrated(plan: Plan, lines: Sequence[Line], workers: int) -> State:
    """Turn the calibrations' lines into decisions.

    Raises:
        ValueError: if the plan holds a mistake, no candidate can be trained, or the budget is too small.
    """
    found = {str(line["candidate"]): line for line in lines}
    ordered = [found[label] for label in plan.labels]
    for line in ordered:
        if line["status"] == MISTAKE:
            raise ValueError(line["message"])
    good = [line for line in ordered if line["status"] == "ok"]
    if not good:
        first = ordered[0]
        raise ValueError(f"no candidate can be trained; {first['candidate']}: {first['status']}: {first['message']}")
    costs = {line["candidate"]: Cost(line["metrics"]["step"], line["metrics"]["fixed"]) for line in good}
    failures = {
        line["candidate"]: {"status": line["status"], "message": line["message"]}
        for line in ordered
        if line["status"] != "ok"
    }
    return State(budget.steps(plan, costs, workers), costs, failures, good[0]["metrics"]["facts"])
