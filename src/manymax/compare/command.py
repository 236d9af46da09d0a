"""`manymax compare`: put candidates in a place of a model and see what each does."""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

from manymax._extras import require
from manymax.compare import candidate, executors, jobs, options, progress, runner, series, state
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
    """Run the plan, write the report and print the table; with several tasks, do so for each and then for all."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            require(package, "compare")
    if args.executor and args.workers:
        raise ValueError("workers: expected nothing with --executor, whose cluster has its own")
    keys = options.read_keys(args)
    plans = series.plans(keys)
    folder = _folder(args, plans)
    from manymax.compare import report  # noqa: PLC0415  (its packages are optional)

    if len(plans) == 1:
        _run_one(args, plans[0], folder, folder)
        return 0
    series.save(folder, keys)
    parts = series.folders(folder, plans)
    for plan, part in zip(plans, parts, strict=True):
        _run_one(args, plan, part, folder)
        print()
    path = report.build_overview(parts, folder)
    report.print_overview(parts)
    print(f"report: {path}")
    return 0


def _run_one(args: argparse.Namespace, plan: Plan, folder: Path, whole: Path) -> None:
    """Run a plan on one task, write its report and print its table; `whole` is the folder that goes on with it."""
    workers, threads = shares(plan, args.workers)
    executor = executors.create(args.executor, workers)
    if args.executor:
        threads = (plan.threads or 1, plan.threads or 1)
    try:
        display = progress.create()
        display.say(f"run: {folder}")
        runner.Runner(plan, folder, executor, display, threads, retry=args.retry).run(args.command_line)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(folder, plan, whole)) from None
    finally:
        executor.close()
    from manymax.compare import report  # noqa: PLC0415  (its packages are optional)

    path = report.build([folder])
    report.print_table([folder])
    print(f"report: {path}")


def _folder(args: argparse.Namespace, plans: list[Plan]) -> Path:
    """Return the folder of the run: the one given, or one named after time and tasks."""
    if args.plan is not None and args.plan.is_dir():
        if args.out is not None and args.out != args.plan:
            raise ValueError(f"out: expected nothing, since {args.plan} goes on in its own folder, got {args.out}")
        return Path(args.plan)
    if args.out is not None:
        return Path(args.out)
    tasks = "-".join(candidate.parse(plan.task, "task").system for plan in plans)
    return Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{tasks}")


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


def _interrupted(folder: Path, plan: Plan, whole: Path) -> str:
    if not (folder / state.STATE_NAME).exists():
        kept = f"; go on with: manymax compare {whole}" if whole != folder else "; nothing is stored yet"
        return f"interrupted while calibrating{kept}"
    finished, total = runner.counts(folder, plan)
    return f"interrupted; {finished} of {total} jobs are finished; go on with: manymax compare {whole}"
