"""`manymax compare`: put candidates in a place of a model and see what each does."""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

from manymax._extras import require
from manymax.compare import candidate, executors, jobs, options, progress, runner, state
from manymax.compare.plan import Plan

SUMMARY = "train candidates side by side and measure quality, speed, memory and stability"
PACKAGES = ("rich", "jinja2", "matplotlib")  # needed when hours may have passed: asked for before


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax compare`."""
    options.add_plan(parser)
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (runs/TIME-TASK)")
    parser.add_argument("--workers", type=int, metavar="N", help="trainings at once (as many as there are cores)")
    parser.add_argument("--executor", metavar="ADDRESS", help="dask://HOST:PORT of a Dask scheduler")
    parser.add_argument("--retry", action="store_true", help="do jobs again that have failed")


def run(args: argparse.Namespace) -> int:
    """Run the plan, write the report and print the table."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            require(package, "compare")
    plan = options.read_plan(args)
    if args.executor and args.workers:
        raise ValueError("workers: expected nothing with --executor, whose cluster has its own")
    folder = _folder(args, plan)
    workers, threads = shares(plan, args.workers)
    executor = executors.create(args.executor, workers)
    if args.executor:
        threads = (plan.threads or 1, plan.threads or 1)
    try:
        display = progress.create()
        display.say(f"run: {folder}")
        runner.Runner(plan, folder, executor, display, threads, retry=args.retry).run(args.command_line)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(folder, plan)) from None
    finally:
        executor.close()
    from manymax.compare import report  # noqa: PLC0415  (its packages are optional)

    path = report.build([folder])
    report.print_table([folder])
    print(f"report: {path}")
    return 0


def _folder(args: argparse.Namespace, plan: Plan) -> Path:
    """Return the folder of the run: the one given, or one named after time and task."""
    if args.plan is not None and args.plan.is_dir():
        if args.out is not None and args.out != args.plan:
            raise ValueError(f"out: expected nothing, since {args.plan} goes on in its own folder, got {args.out}")
        return Path(args.plan)
    if args.out is not None:
        return Path(args.out)
    task = candidate.parse(plan.task, "task").system
    return Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{task}")


def shares(plan: Plan, workers: int | None) -> tuple[int, tuple[int, int]]:
    """Return how many trainings run at once, and torch's threads in each and in a job that runs alone.

    Small models use one core each better than several: two trainings of one thread finish before one of two threads
    has done both. An accelerator takes one at a time.

    Raises:
        ValueError: if workers is below 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected 1 or more, got {workers}")
    cores = options.cores()
    fitting = max(1, cores // (plan.threads or 1)) if plan.device == "cpu" else 1
    workers = workers or min(fitting, len(jobs.trainings(plan)))
    return workers, (plan.threads or max(1, cores // workers), plan.threads or cores)


def _interrupted(folder: Path, plan: Plan) -> str:
    if not (folder / state.STATE_NAME).exists():
        return "interrupted while calibrating; nothing is stored yet"
    finished, total = runner.counts(folder, plan)
    return f"interrupted; {finished} of {total} jobs are finished; go on with: manymax compare {folder}"
