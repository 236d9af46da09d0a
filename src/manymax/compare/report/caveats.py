"""What the reader must know before trusting the numbers, and what did not end well."""

from __future__ import annotations

from collections.abc import Sequence

from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import KINDS
from manymax.compare.report.values import Failure, Row

ONE_MACHINE = ("processor", "torch", "commit", "dtype")


def caveats(runs: Runs) -> list[str]:
    """Return what limits the results: missing jobs, one seed, merged runs, several machines or versions."""
    found = []
    if missing := runs.missing:
        shown = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        count = "1 job is" if len(missing) == 1 else f"{len(missing)} jobs are"
        found.append(f"This run is not finished: {count} still missing ({shown}). The same command goes on with it.")
    if len(runs.seeds) == 1:
        found.append("There is one seed, hence no interval and no verdict on quality; two or more seeds allow one.")
    if len(runs.folders) > 1:
        folders = ", ".join(str(folder) for folder in runs.folders)
        found.append(f"{len(runs.folders)} runs merged: {folders}. What several of them hold is the last one's.")
    values = {key: values_of(runs, key) for key in ONE_MACHINE}
    return found + [f"The jobs differ in {key}: {', '.join(many)}." for key, many in values.items() if len(many) > 1]


def values_of(runs: Runs, key: str) -> list[str]:
    """Return the distinct values of one entry of the jobs' environments, in order of appearance."""
    found = ((line.get("environment") or {}).get(key) for line in runs.lines.values())
    return list(dict.fromkeys(str(value) for value in found if value not in (None, "")))


def failures(runs: Runs, rows: Sequence[Row]) -> list[Failure]:
    """Return all that failed, once for each candidate and reason: candidates' jobs, then jobs about all candidates."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for one in row.failures:
            places.setdefault((one.name, one.status, one.message), []).append(one.where)
    for kind, where in KINDS.items():
        line = runs.single(kind)
        if line is not None and line["status"] != "ok":
            places.setdefault(("all candidates", line["status"], line.get("message", "")), []).append(where)
    return [Failure(name, _together(where), status, message) for (name, status, message), where in places.items()]


def _together(places: Sequence[str]) -> str:
    """Return "seeds 0, 1, timing" for "seed 0", "seed 1" and "timing"."""
    seeds = [place.removeprefix("seed ") for place in places if place.startswith("seed ")]
    others = [place for place in places if not place.startswith("seed ")]
    return ", ".join([*([f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"] if seeds else []), *others])
