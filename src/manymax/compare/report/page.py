"""report.html: one offline file, readable on a phone and on a wide screen, in light and dark, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymax import __version__
from manymax._extras import require
from manymax.compare.report import figures
from manymax.compare.report.caveats import caveats, failures
from manymax.compare.report.cells import Table, length_tables
from manymax.compare.report.facts import facts, machine, plan, reading
from manymax.compare.report.runs import Runs, load
from manymax.compare.report.sentences import noise_sentence, quality_sentence, speed_sentence, title
from manymax.compare.report.summary import summarise
from manymax.compare.report.values import Row
from manymax.compare.report.verdict_table import groups, row_view
from manymax.compare.report.wording import capital

REPORT_NAME = "report.html"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A section of figures, or the reason why there are none, with tables below."""

    id: str
    title: str
    figures: Sequence[figures.Figure]
    absent: str
    tables: Sequence[Table] = ()


def build(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run, or of several merged.

    Args:
        run_dirs: folders of runs.
        out: the file; `report.html` in the first run's folder by default.

    Returns:
        The file that was written.

    Raises:
        FileNotFoundError: if a folder is no run.
        ValueError: if nothing has finished, or the runs ask different questions.
        ImportError: if jinja2 or matplotlib is missing.
    """
    return write(_HERE / "page.html.jinja", _context(load(run_dirs)), out or run_dirs[0] / REPORT_NAME)


def write(template: Path, context: dict[str, Any], target: Path) -> Path:
    """Fill a template and write it; an earlier file stays whole until the new one is complete."""
    jinja = require("jinja2", "compare")
    loader = jinja.FileSystemLoader(template.parent)
    page = jinja.Environment(loader=loader, autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True)
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    text = page.get_template(template.name).render(context | {"style": style, "version": __version__})
    beside = target.with_name(target.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
    except OSError:
        beside.unlink(missing_ok=True)  # the disk may be full
        raise
    return beside.replace(target)


def _context(runs: Runs) -> dict[str, Any]:
    rows = summarise(runs)
    return {
        "title": title(runs),
        "kicker": f"manymax compare: {runs.plan['site']} on {runs.plan['task']}",
        "verdict": _unbroken(quality_sentence(runs, rows)),
        "speed": speed_sentence(runs, rows),
        "facts": facts(runs),
        "caveats": caveats(runs),
        "table_lead": _table_lead(runs),
        "groups": groups(runs),
        "rows": [row_view(runs, row) for row in rows],
        "failures": failures(runs, rows),
        "parts": _parts(runs, rows),
        "commands": list(dict.fromkeys(runs.commands)),
        "plan": plan(runs),
        "machine": machine(runs),
        "noise": noise_sentence(runs),
        "reading": reading(runs),
        "folders": ", ".join(str(folder) for folder in runs.folders),
    }


def _table_lead(runs: Runs) -> str:
    quality = runs.plan["quality"]
    return (
        f"{capital(quality['name'])}: {quality['better']} is better. Speed and memory are ratios to {runs.baseline}'s. "
        f"▲ is better than {runs.baseline}, ▼ is worse; a dash says why there is no number."
    )


def _unbroken(text: str) -> str:
    """Keep a number and its interval on one line."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _parts(runs: Runs, rows: Sequence[Row]) -> list[Part]:
    nothing = "Nothing to draw: no job that measures this has finished."
    over_length = Part(
        "length", "Time and memory over length", figures.length(runs, rows), nothing, length_tables(runs, rows)
    )
    return [
        Part("tradeoff", "Quality against speed and memory", figures.tradeoff(runs, rows), nothing),
        Part("curves", "Learning curves", figures.curves(runs, rows), nothing),
        *([over_length] if "length" in runs.shared_jobs else []),
        Part("stability", "Stability", figures.stability(runs, rows), nothing),
    ]
