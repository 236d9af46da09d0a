"""The table that closes a comparison in the terminal: coloured on a terminal, plain aligned text when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from manymax._extras import require
from manymax.compare.report.caveats import caveats, failures
from manymax.compare.report.columns import GAP, Column, columns, fitting
from manymax.compare.report.runs import Runs, load
from manymax.compare.report.sentences import quality_sentence, speed_sentence
from manymax.compare.report.summary import noise_floor, summarise
from manymax.compare.report.values import Row, Tone
from manymax.compare.report.wording import DASH, MINUS, TIMES, percent

STYLES: dict[Tone, str] = {"better": "bold cyan", "worse": "bold yellow", "failed": "bold red", "missing": "dim"}
ASCII = str.maketrans({"▲": "+", "▼": "-", "✕": "x", "±": "+-", TIMES: "x", DASH: "-", MINUS: "-"})


def print_table(run_dirs: Sequence[Path], stream: TextIO | None = None) -> None:
    """Print the verdict of one or several merged runs.

    Args:
        run_dirs: folders of runs.
        stream: where to; standard output by default.

    Raises:
        FileNotFoundError: if a folder is no run.
        ValueError: if nothing has finished, or the runs ask different questions.
        ImportError: if the stream is a terminal and rich is missing.
    """
    stream = stream or sys.stdout
    runs = load(run_dirs)
    rows = summarise(runs)
    shown = columns(runs, rows)
    verdict = " ".join(text for text in (quality_sentence(runs, rows), speed_sentence(runs, rows)) if text)
    show(stream, shown, verdict, _notes(runs, rows))


def show(stream: TextIO, shown: Sequence[Column], verdict: str, notes: Sequence[str]) -> None:
    """Print columns, a sentence and notes."""
    if stream.isatty():
        _print_rich(stream, shown, verdict, notes)
        return
    text = "\n".join([*_aligned(shown), "", verdict, *notes])
    print(text if _prints(stream) else text.translate(ASCII), file=stream)


def _notes(runs: Runs, rows: Sequence[Row]) -> list[str]:
    """Return what failed, what restricts the results, and what the columns mean."""
    quality, noise = runs.plan["quality"], noise_floor(runs)
    failed = [
        f"{one.name}, {one.where}: {one.status}{': ' if one.message else ''}{one.message}"
        for one in failures(runs, rows)
    ]
    meaning = (
        f"quality: {quality['name']}, {quality['better']} is better; ± is a 95 % interval over paired seeds. train, "
        f"generate: speed, and memory: peak in training, as ratios to {runs.baseline}'s. state: bytes that generation "
        "keeps of one sequence. ▲ better, ▼ worse."
    )
    if runs.plan["site"] == "output":
        meaning += (
            " accuracy, among 5: targets with the highest score, or one of the five highest; calibration error: how "
            "far the share of right predictions is from their mean confidence."
        )
    floor = "" if noise is None else f" Noise floor of the timing: {percent(noise)}."
    return [*failed, *caveats(runs), meaning + floor]


def _aligned(shown: Sequence[Column]) -> list[str]:
    lines = zip(*([column.head, *(entry.text for entry in column.entries)] for column in shown), strict=True)
    return [
        (" " * GAP)
        .join(
            text.ljust(column.width) if column.left else text.rjust(column.width)
            for text, column in zip(line, shown, strict=True)
        )
        .rstrip()
        for line in lines
    ]


def _prints(stream: TextIO) -> bool:
    """Return whether the stream's encoding has the signs that the table uses."""
    try:
        "".join(map(chr, ASCII)).encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _print_rich(stream: TextIO, shown: Sequence[Column], verdict: str, notes: Sequence[str]) -> None:
    console = require("rich.console", "compare").Console(file=stream, highlight=False)
    text, box = require("rich.text", "compare").Text, require("rich.box", "compare")
    table = require("rich.table", "compare").Table(
        box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False
    )
    fits = fitting(shown, console.width)
    for column in fits:
        table.add_column(text(column.head), justify="left" if column.left else "right", overflow="fold")
    for line in zip(*(column.entries for column in fits), strict=True):
        table.add_row(*(text(entry.text, style=STYLES.get(entry.tone, "")) for entry in line))
    console.print(table)
    console.print()
    console.print(text(verdict, style="bold"))
    for note in notes:
        console.print(text(note, style="dim"))
