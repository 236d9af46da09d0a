"""What a series of runs says together: a row a candidate, columns for each task, and the way to each run's own page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from manymax.compare.report.cells import Cell, dash
from manymax.compare.report.columns import Column, Entry, columns
from manymax.compare.report.page import REPORT_NAME, write
from manymax.compare.report.runs import Runs, load
from manymax.compare.report.sentences import quality_sentence
from manymax.compare.report.summary import summarise
from manymax.compare.report.terminal import show
from manymax.compare.report.values import Row
from manymax.compare.report.verdict_table import RowView, row_view
from manymax.compare.report.wording import DASH, capital

_TEMPLATE = Path(__file__).with_name("overview.html.jinja")

# What stands under each task, by site; "memory" is the training's peak.
HEADS = {
    "attention": ("verdict", "mean", "training", "generation", "state"),
    "output": ("verdict", "mean", "among 5", "calibration error", "training", "memory"),
}


@dataclass(frozen=True)
class Part:
    """One task's run."""

    folder: Path
    runs: Runs
    rows: list[Row]

    @classmethod
    def of(cls, folder: Path) -> Part:
        """Read a run's folder."""
        runs = load([folder])
        return cls(folder, runs, summarise(runs))

    @property
    def task(self) -> str:
        """Return the task's name with its options."""
        return str(self.runs.plan["task"])


def build_overview(run_dirs: Sequence[Path], folder: Path, out: Path | None = None) -> Path:
    """Write the page of a series of runs.

    Args:
        run_dirs: folders of its runs, one for each task.
        folder: the series' own.
        out: the file; `report.html` in the series' folder by default.

    Returns:
        The file that was written.
    """
    target = out or folder / REPORT_NAME
    return write(_TEMPLATE, _context([Part.of(one) for one in run_dirs], target), target)


def print_overview(run_dirs: Sequence[Path], stream: TextIO | None = None) -> None:
    """Print a table of all tasks' qualities, marked where they differ from the baseline's."""
    parts = [Part.of(one) for one in run_dirs]
    names = [row.name for row in parts[0].rows]
    shown = [Column("name", "candidate", [Entry(name) for name in names], left=True)]
    for part in parts:
        own = {column.key: column for column in columns(part.runs, part.rows)}
        entries = zip(part.rows, own["quality"].entries, own["verdict"].entries, strict=True)
        found = {row.name: _marked(quality, verdict) for row, quality, verdict in entries}
        head = f"{part.task}: {part.runs.plan['quality']['name']}"
        shown.append(Column(part.task, head, [found.get(name, Entry(DASH, "missing")) for name in names]))
    base = parts[0].runs.baseline
    meaning = f"▲ better than {base}, ▼ worse, = no difference; ± is a 95 % interval over paired seeds."
    sentences = [f"{capital(part.task)}: {quality_sentence(part.runs, part.rows)}" for part in parts]
    show(stream or sys.stdout, shown, "\n".join(sentences), [meaning])


def _marked(quality: Entry, verdict: Entry) -> Entry:
    """Return a quality with its verdict's sign."""
    sign = verdict.text.partition(" ")[0] if verdict.tone != "baseline" else ""
    return Entry(f"{sign} {quality.text}".strip(), verdict.tone, quality.short)


def _context(parts: Sequence[Part], target: Path) -> dict[str, Any]:
    views = [{row.name: row_view(part.runs, row) for row in part.rows} for part in parts]
    first = parts[0]
    site = first.runs.plan["site"]
    return {
        "title": f"{len(first.rows)} candidates on {len(parts)} tasks",
        "kicker": f"manymax compare: {first.runs.plan['site']} on {', '.join(part.task for part in parts)}",
        "parts": [_summary(part, target) for part in parts],
        "heads": HEADS[site],
        "rows": [(views[0][row.name], [_cells(view.get(row.name), site) for view in views]) for row in first.rows],
        "ratios": "Speed and memory" if site == "output" else "Speed and state",
        "baseline": first.runs.baseline,
    }


def _summary(part: Part, target: Path) -> dict[str, str]:
    quality = part.runs.plan["quality"]
    return {
        "task": part.task,
        "quality": f"{quality['name']}, {quality['better']} is better",
        "verdict": quality_sentence(part.runs, part.rows),
        "link": Path(os.path.relpath(part.folder / REPORT_NAME, target.parent)).as_posix(),
    }


def _cells(view: RowView | None, site: str) -> list[Cell]:
    """Return a candidate's cells of one task, in the order of the site's HEADS."""
    if view is None:
        return [dash("not in this run")] * len(HEADS[site])
    (verdict, _, mean), (training, generation), (peak, state), *others = view.groups
    if site == "output":
        _, among, error = others[0]
        return [verdict, mean, among, error, training, peak]
    return [verdict, mean, training, generation, state]
