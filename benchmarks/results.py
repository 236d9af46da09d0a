"""Everything that a run found, as a table and as JSON, from which the site's tables and pictures are made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS, Verdict, judge
from benchmarks.limits import Limits
from benchmarks.measure import Measurement
from benchmarks.scale import Scale
from manymax._environment import environment
from manymax._records import plain, write_whole
from manymax.describe.table import aligned
from manymax.kernels import status

HEADER = ("WORK", "AGAINST", "TARGET", "REACHED", "MET")


def verdicts(measurements: Sequence[Measurement]) -> dict[str, Verdict]:
    """Return the verdict on every goal."""
    return {key: judge(goal, [one for one in measurements if one.goal == key]) for key, goal in GOALS.items()}


def table(found: Mapping[str, Verdict]) -> str:
    """Return the goals beside what was reached, then what limits those that are not met."""
    rows = [(GOALS[key].work, GOALS[key].against, GOALS[key].bound, one.reached, one.met) for key, one in found.items()]
    limits = [f"- {GOALS[key].work}: {one.limit}." for key, one in found.items() if one.limit]
    return "\n".join([*aligned([HEADER, *rows]), *(["", "What limits the others:", *limits] if limits else [])])


def machine(scale: Scale) -> dict[str, Any]:
    """Return what the numbers depend on; to be asked before the first measurement, which is itself a load."""
    return {
        **environment("float32, bfloat16"),
        "kernels": status(),
        "cores": os.cpu_count(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[0], 2),
        "scale": scale.name,
    }


def line(one: Measurement) -> str:
    """Return a measurement as a line of progress."""
    goal = GOALS[one.goal]
    if one.reached is None:
        return f"{one.goal}: {one.case}: {one.message}"
    spread = "" if one.low is None or one.high is None else f" ({goal.show(one.low)} to {goal.show(one.high)})"
    share = f", {one.rate / one.limit:.0%} of the limit" if one.rate and one.limit else ""
    return f"{one.goal}: {one.case}: {goal.show(one.reached)}{spread}{share}{served(one)}"


def served(one: Measurement) -> str:
    """Return a remark if another backend than the native one served."""
    return f", served by {one.backend}" if one.backend not in {"", "cpu"} else ""


def write(
    path: Path,
    environment: dict[str, Any],
    limits: Limits,
    measurements: Sequence[Measurement],
    errors: Sequence[dict[str, str | float]],
) -> None:
    """Write everything."""
    goals = [
        {"key": key, "work": GOALS[key].work, "against": GOALS[key].against, "target": GOALS[key].bound, **asdict(one)}
        for key, one in verdicts(measurements).items()
    ]
    result = {
        "machine": environment,
        "limits": limits.record(),
        "goals": goals,
        "measurements": [asdict(one) for one in measurements],
        "errors": list(errors),
    }
    write_whole(path, json.dumps(plain(result), indent=1) + "\n")
