"""One plan over several tasks: a run for each, in a folder of its own inside the series' folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manymax.compare import candidate, values
from manymax.compare.plan import Plan
from manymax.compare.reading import from_mapping

SERIES_NAME = "series.json"


def plans(keys: Mapping[str, Any]) -> list[Plan]:
    """Return a plan for each task of the keys; they share the budget evenly.

    Raises:
        ValueError: if the tasks are no list of names, each once, or a plan has mistakes.
    """
    tasks = keys.get("task")
    if not isinstance(tasks, (list, tuple)):
        return [from_mapping(keys)]
    labels = [candidate.parse(task, "task").label for task in tasks]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"task: expected at least one, each once, got {list(tasks)}")
    budget = values.seconds("budget", keys.get("budget") or Plan.budget)
    return [from_mapping({**keys, "task": label, "budget": budget / len(labels)}) for label in labels]


def folders(folder: Path, parts: list[Plan]) -> list[Path]:
    """Return where each part's run lies."""
    names = [candidate.parse(part.task, "task").system for part in parts]
    return [folder / f"{number}-{name}" for number, name in enumerate(names, 1)]


def save(folder: Path, keys: Mapping[str, Any]) -> None:
    """Write down what the series was planned with, unless that is there.

    Raises:
        ValueError: if the folder holds another series.
    """
    path = folder / SERIES_NAME
    text = json.dumps(dict(keys), indent=1, default=str)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(f"out: {folder} holds a series of runs with another plan; choose another folder")


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of a series' runs that have begun; none if the folder holds no series."""
    if not (folder / SERIES_NAME).is_file():
        return []
    return sorted(path.parent for path in folder.glob("*/plan.json"))
