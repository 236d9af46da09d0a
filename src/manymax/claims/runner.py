"""Running claims: each (claim, seed) is one run with one line in the results, and a finished one is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from manymax._environment import environment
from manymax._records import Record, append_record, read_records
from manymax.claims.claim import Claim, Metrics, Untestable

RESULTS = "results.jsonl"
Results: TypeAlias = Mapping[int, Record]


@dataclass(frozen=True)
class Run:
    """One seed of one claim."""

    claim: Claim
    seed: int

    @property
    def minutes(self) -> float:
        """Return how long the run takes by the claim's own account."""
        return self.claim.minutes / len(self.claim.seeds)

    def __str__(self) -> str:
        return f"{self.claim.name}, seed {self.seed}"


class Watcher(Protocol):
    """Who is told how far the runs are."""

    def started(self, run: Run) -> None:
        """Take note that a run begins."""

    def advanced(self, share: float, doing: str) -> None:
        """Take note of the share of the present run that is done."""

    def finished(self, run: Run, record: Record) -> None:
        """Take note of a run's result, which is on disk by then."""


def finished_runs(claim: Claim, folder: Path) -> dict[int, Record]:
    """Return the newest result of each seed that was made with the claim's present numbers and code.

    A run that crashed or could not be tested here does not count as finished, since its cause may be gone.
    """
    return {seed: record for seed, record in latest(claim, folder).items() if record["status"] == "ok"}


def latest(claim: Claim, folder: Path) -> dict[int, Record]:
    """Return the newest result of each seed with the claim's present numbers and code, whatever came of it."""
    mark = claim.fingerprint()
    records = (record for record in read_records(folder / RESULTS) if record.get("claim") == claim.name)
    return {record["seed"]: record for record in records if record["fingerprint"] == mark}


def pending(claims: Sequence[Claim], folder: Path, *, fresh: bool) -> list[Run]:
    """Return the runs that are still to do: all with `fresh`, else those without a result."""
    runs = [Run(claim, seed) for claim in claims for seed in claim.seeds]
    done = {} if fresh else {claim.name: finished_runs(claim, folder) for claim in claims}
    return [run for run in runs if run.seed not in done.get(run.claim.name, {})]


def run_all(runs: Sequence[Run], folder: Path, watcher: Watcher) -> Iterator[Record]:
    """Do the runs one after the other; yield each result once it is on disk. A crash is a result too.

    Raises:
        OSError: if a result cannot be written; those before are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).open("a").close()  # a folder that cannot be written to shows now, not after the first run
    for run in runs:
        watcher.started(run)
        record = measure(run, run.claim.numbers, watcher.advanced)
        append_record(folder / RESULTS, record)
        watcher.finished(run, record)
        yield record


def measure(run: Run, numbers: Mapping[str, Any], progress: Callable[[float, str], None]) -> Record:
    """Run the experiment and return the line for the results, with what went wrong if something did."""
    fingerprint = run.claim.fingerprint()  # now: who edits the experiment while it runs must not get the old numbers
    begun = time.perf_counter()
    status, message, metrics = "ok", "", Metrics()
    try:
        metrics = run.claim.experiment()(run.seed, numbers, progress)
        _refuse_other_names(run.claim, metrics)
    except ImportError as error:
        status, message = "untestable", str(error)
    except Exception as error:  # noqa: BLE001 - one claim's crash must not stop the others; it is recorded and shown
        status, message = "crashed", f"{type(error).__name__}: {error}"
    return {
        "claim": run.claim.name,
        "seed": run.seed,
        "status": status,
        "message": message,
        "fingerprint": fingerprint,
        "metrics": {name: value for name, value in metrics.items() if not isinstance(value, Untestable)},
        "untestable": {name: value.reason for name, value in metrics.items() if isinstance(value, Untestable)},
        "numbers": dict(numbers),
        "seconds": round(time.perf_counter() - begun, 3),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment(),
    }


def _refuse_other_names(claim: Claim, metrics: Metrics) -> None:
    if set(metrics) != set(claim.metrics):
        different = sorted(set(metrics) ^ set(claim.metrics))
        raise RuntimeError(f"{claim.module} and {claim.name} differ on the metrics {', '.join(different)}")
