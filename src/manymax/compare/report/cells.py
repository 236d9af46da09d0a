"""Rows and cells of the page's tables: text, lines below it, and a tone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manymax.compare.report.figures.length import crossovers, lengths, measured
from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import shared
from manymax.compare.report.values import Missing, Row, Tone
from manymax.compare.report.wording import DASH, duration, size

SIGNS: dict[Tone, str] = {"better": "▲", "worse": "▼", "same": "=", "unclear": "?", "failed": "✕"}


@dataclass(frozen=True)
class Cell:
    """A table cell: text, smaller lines below it, and its classes of the style sheet."""

    text: str
    below: tuple[str, ...] = ()
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table beside figures; a folded one opens on demand."""

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    folded: bool = False


def dash(reason: str) -> Cell:
    """Return the cell of a value that nobody measured."""
    return Cell(DASH, (reason,), "missing")


def length_tables(runs: Runs, rows: Sequence[Row]) -> list[Table]:
    """Return from where candidates beat the baseline, and all that was measured over length."""
    if not lengths(runs):
        return []
    others = [(row.name, [_crossing(runs, row.name), _served(runs, row.name)]) for row in rows if row.position]
    first = Table(f"Faster than {runs.baseline} from", ["Candidate", "tokens", "served by"], others)
    kinds: list[tuple[str, str, Callable[[float], str]]] = [
        ("Time in numbers", "seconds", duration),
        ("Memory in numbers", "peak_bytes", size),
    ]
    return ([first] if others else []) + [_numbers(runs, rows, *kind) for kind in kinds]


def _numbers(runs: Runs, rows: Sequence[Row], title: str, key: str, write: Callable[[float], str]) -> Table:
    body = []
    for row in rows:
        known = dict(measured(runs, row.name, key))
        gap = dash(_why(runs, row.name))
        body.append((row.name, [Cell(write(known[n])) if n in known else gap for n in lengths(runs)]))
    return Table(title, ["Candidate", *(f"{n:,}" for n in lengths(runs))], body, folded=True)


def _why(runs: Runs, name: str) -> str:
    part = shared(runs, name, "length")
    return part.reason if isinstance(part, Missing) else "too slow"  # what a candidate without failure is left out for


def _crossing(runs: Runs, name: str) -> Cell:
    mine, base = (dict(measured(runs, each, "seconds")) for each in (name, runs.baseline))
    common = sorted(mine.keys() & base.keys())
    if not common:
        return dash(_why(runs, name))
    found = crossovers(runs).get(name)
    if found is None:
        return Cell("never", (f"up to {common[-1]:,}",), "same")
    return Cell(f"{found:,.0f}", ("every length measured",) if found <= common[0] else ())


def _served(runs: Runs, name: str) -> Cell:
    """Return the backends that a candidate ran on: one that torch has fused is faster for that reason alone."""
    part = runs.part("length", name) or {}
    found = dict.fromkeys(backend for backend in part.get("backend") or () if backend)
    return Cell(", ".join(found)) if found else dash(_why(runs, name))
