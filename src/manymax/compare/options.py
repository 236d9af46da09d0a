"""What `manymax compare` and `manymax validate` read from the command line: a plan, or a run to go on with."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

from manymax.compare import candidate, plan_file
from manymax.compare.plan import SITES, Plan
from manymax.compare.series import SERIES_NAME
from manymax.compare.state import STATE_NAME


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Declare the plan file and an option for each key of a plan."""
    parser.add_argument(
        "plan", nargs="?", type=Path, help="a plan file (.toml or .py); or the folder of a run, to go on with it"
    )
    keys = parser.add_argument_group("the plan", "each option stands for a key of the plan file and comes before it")
    keys.add_argument("--site", metavar="SITE", help=f"where the candidates act: {' or '.join(SITES)} (or head)")
    keys.add_argument("--candidates", nargs="+", metavar="NAME", help="name, or name:option=value,option=value")
    keys.add_argument("--baseline", metavar="NAME", help="what the others are measured against (softmax)")
    keys.add_argument(
        "--task",
        nargs="+",
        metavar="NAME",
        help="what is learnt (text); several share the budget; see: manymax list tasks",
    )
    keys.add_argument("--text", metavar="PATH", help="a file or folder to train on, for text and words")
    keys.add_argument("--seeds", type=_seeds, metavar="N", help="how many (3), or which: 3,4,5")
    keys.add_argument("--budget", metavar="TIME", help="for training, speed and length together (3min)")
    keys.add_argument("--steps", type=int, metavar="N", help="steps of each training, instead of what fits the budget")
    keys.add_argument("--model", nargs="+", metavar="SIZE=N", help="sizes of the model, such as depth=4 width=128")
    keys.add_argument("--batch-size", type=int, metavar="N", help="examples in a step")
    keys.add_argument("--learning-rate", type=float, metavar="X", help="the highest of the schedule")
    keys.add_argument("--lengths", nargs="+", type=int, metavar="N", help="tokens at which attention alone is measured")
    keys.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (cpu)")
    keys.add_argument("--dtype", metavar="NAME", help="float32, float64 or bfloat16 (float32)")
    keys.add_argument("--threads", type=int, metavar="N", help="torch's threads in a training")
    keys.add_argument("--timeout", metavar="TIME", help="when a job is stopped (four times what is expected)")
    keys.add_argument("--memory", type=int, metavar="BYTES", help="most that a job may use (no limit)")


def _seeds(text: str) -> int | list[int]:
    """Read "3" or "3,4,5"."""
    numbers = [int(part) for part in text.split(",")]
    return numbers if "," in text else numbers[0]


def read_keys(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keys of a plan: the file's, or those of the run to go on with, with the options in front of them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no plan.
    """
    keys: dict[str, Any] = {}
    if args.plan is not None:
        keys = _planned(args.plan) if args.plan.is_dir() else plan_file.read(args.plan)
    for field in dataclasses.fields(Plan):
        given = getattr(args, field.name, None)
        if given is not None:
            keys[field.name] = _sizes(given) if field.name == "model" else given
    if isinstance(keys.get("task"), list) and len(keys["task"]) == 1:
        keys["task"] = keys["task"][0]
    if keys.get("text") is not None:
        keys["text"] = str(Path(keys["text"]).resolve())  # a run may go on from another folder
    return keys


def _planned(run: Path) -> dict[str, Any]:
    """Return what a run, or a series of them, was planned with; its plan.json is what became of it."""
    if (run / SERIES_NAME).is_file():
        return plan_file.read_json(run, SERIES_NAME)
    keys: dict[str, Any] = plan_file.read_json(run, STATE_NAME)["plan"]
    return keys


def _sizes(given: list[str]) -> dict[str, object]:
    """Read SIZE=N words."""
    return dict(candidate.parse(f"model:{','.join(given)}", "model").options)


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
