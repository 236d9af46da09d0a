"""Plan files: TOML, or Python that defines `plan`, a dict with the same keys; and the JSON files of a run."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from manymax._extras import require

PLAN_NAME = "plan.json"


def read(path: Path) -> dict[str, Any]:
    """Return the keys of a plan file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a plan.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such plan file")
    if path.suffix == ".py":
        given = execute(path).get("plan")
        if not isinstance(given, dict):
            raise ValueError(f"{path}: expected it to define `plan`, a dict with the keys of a plan")
        return {**given, "source": str(path.resolve())}
    if path.suffix == ".toml":
        toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", "compare")
        try:
            keys: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
        except toml.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from error
        return keys
    raise ValueError(f"{path}: expected a plan file ending in .toml or .py, or the folder of a run")


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Return a JSON file of a run's folder.

    Raises:
        FileNotFoundError: if the folder holds no run.
    """
    if not (run / name).is_file():
        raise FileNotFoundError(f"{run}: no {name} in it, so it is not the folder of a run")
    content: dict[str, Any] = json.loads((run / name).read_text(encoding="utf-8"))
    return content


def execute(path: Path) -> dict[str, Any]:
    """Run a Python plan file and return what it defines; in it `__name__` is "manymax_plan"."""
    return runpy.run_path(str(path), run_name="manymax_plan")
