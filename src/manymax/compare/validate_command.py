"""`manymax validate PLAN`: check a plan without running it."""

from __future__ import annotations

import argparse

from manymax.compare import budget, executors, options, series
from manymax.compare.jobs import Order
from manymax.compare.plan import Plan
from manymax.compare.results import Line
from manymax.compare.session import work_through
from manymax.compare.state import MISTAKE

SUMMARY = "check a plan without running it: names, options, task and sizes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax validate`."""
    options.add_plan(parser)


def run(args: argparse.Namespace) -> int:
    """Build every candidate's model and run it on two examples; print what the plan would do on each task."""
    return max(_validate(plan) for plan in series.plans(options.read_keys(args)))


def _validate(plan: Plan) -> int:
    lines = check(plan)
    mistakes = [line["message"] for line in lines if line["status"] == MISTAKE]
    if mistakes:
        raise ValueError(mistakes[0])
    for line in lines:
        reason = "" if line["status"] == "ok" else f"{line['status']}: {line['message']}"
        print(f"{line['candidate']}: {reason or 'fine'}")
    if any(line["status"] != "ok" for line in lines):
        return 1
    facts = lines[0]["metrics"]["facts"]
    sizes = ", ".join(f"{name} {value}" for name, value in facts["model"].items())
    print(f"{plan.site} on {plan.task}, {len(plan.seeds)} seeds, baseline {plan.baseline}; {sizes}")
    return 0


def check(plan: Plan) -> list[Line]:
    """Return a line for each candidate; each is checked in a process of its own."""
    executor = executors.create(None, min(options.cores(), len(plan.candidates)))
    limit = plan.timeout or budget.CALIBRATION_TIMEOUT
    lines: list[Line] = []
    try:
        orders = [Order(plan.as_mapping(), "check", label, timeout=limit) for label in plan.labels]
        work_through(executor, orders, lines.append)
    finally:
        executor.close()
    return sorted(lines, key=lambda line: plan.labels.index(str(line["candidate"])))
