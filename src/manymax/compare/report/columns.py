"""The terminal table's columns, and which of them give way where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from manymax.compare.report.cells import SIGNS
from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import noise_floor
from manymax.compare.report.values import (
    Estimate,
    Missing,
    Ratio,
    Row,
    StateSize,
    Tone,
    Verdict,
    memory_verdict,
    speed_verdict,
    state_verdict,
)
from manymax.compare.report.wording import DASH, fixed, plus_minus, significant, size, times

GAP = 2  # spaces between columns


@dataclass(frozen=True)
class Entry:
    """A cell: its text, a shorter one, and its tone."""

    text: str
    tone: Tone = "same"
    short: str = ""


@dataclass(frozen=True)
class Column:
    """A column; `key` names it for those who shrink the table, and is its short head."""

    key: str
    head: str
    entries: Sequence[Entry]
    left: bool = False

    @property
    def width(self) -> int:
        """Return the characters that it takes."""
        return max(len(text) for text in (self.head, *(entry.text for entry in self.entries)))

    def shortened(self) -> Column:
        """Return it with the shorter texts and head."""
        entries = [replace(entry, text=entry.short or entry.text) for entry in self.entries]
        return replace(self, head=self.key, entries=entries)


# What gives way first: (key, whether a shorter text will do).
SHRINKING = (
    ("largest score", False),
    ("nan steps", False),
    ("among 5", False),
    ("calibration", True),
    ("state", True),
    ("quality", True),
    ("verdict", True),
    ("state", False),
    ("quality", False),
    ("generate", False),
    ("accuracy", False),
    ("calibration", False),
)


def columns(runs: Runs, rows: Sequence[Row]) -> list[Column]:
    """Return all columns."""
    noise = noise_floor(runs)
    measured = [
        Column("name", "candidate", [Entry(row.name, row.verdict.tone) for row in rows], left=True),
        Column("quality", runs.plan["quality"]["name"], [_quality(row.quality) for row in rows]),
        Column("difference", f"vs {runs.baseline}", [_difference(row) for row in rows]),
        Column("verdict", "verdict", [_word(row.verdict) for row in rows], left=True),
        Column("train", "train", [_ratio(row.train, speed_verdict(row.train, noise)) for row in rows]),
        Column("generate", "generate", [_ratio(row.generate, speed_verdict(row.generate, noise)) for row in rows]),
        Column("memory", "memory", [_ratio(row.memory, memory_verdict(row.memory)) for row in rows]),
        Column("state", "state", [_state(row.state) for row in rows]),
        Column("nan steps", "NaN steps", [_count(row.stability.nan_steps) for row in rows]),
        Column("largest score", "largest score", [_number(row.stability.largest_score) for row in rows]),
    ]
    return measured if runs.plan["site"] != "output" else _with_predictions(runs, rows, measured)


def _with_predictions(runs: Runs, rows: Sequence[Row], measured: list[Column]) -> list[Column]:
    """Return the columns with those of predictions before the speeds; without accuracy where it is the quality."""
    heads = {"accuracy": "accuracy", "top5_accuracy": "among 5", "calibration_error": "calibration error"}
    if runs.plan["quality"]["name"] == "accuracy":
        del heads["accuracy"]
    found = [
        Column(head.partition(" error")[0], head, [_share(getattr(row.predictions, key)) for row in rows])
        for key, head in heads.items()
    ]
    where = next(place for place, column in enumerate(measured) if column.key == "train")
    return measured[:where] + found + measured[where:]


def fitting(given: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit into so many characters; the last ones standing may still be too wide."""
    kept = list(given)
    for key, shorten in SHRINKING:
        if sum(column.width for column in kept) + GAP * (len(kept) - 1) <= width:
            break
        kept = [column.shortened() if column.key == key else column for column in kept if shorten or column.key != key]
    return kept


def _quality(value: Estimate | Missing) -> Entry:
    if isinstance(value, Missing):
        return Entry(DASH, "missing")
    text = plus_minus(value.mean, value.reach)
    return Entry(text, short=text.partition(" ")[0])


def _difference(row: Row) -> Entry:
    if isinstance(row.difference, Missing):
        return Entry("" if row.position == 0 else DASH, "missing")
    return Entry(plus_minus(row.difference.mean, row.difference.reach, sign=True), row.verdict.tone)


def _word(verdict: Verdict) -> Entry:
    text = f"{SIGNS.get(verdict.tone, '')} {verdict.word}".strip()
    return Entry(f"{text}, {verdict.detail}" if verdict.detail else text, verdict.tone, text)


def _ratio(ratio: Ratio | Missing, verdict: Verdict) -> Entry:
    if isinstance(ratio, Missing):
        return Entry(DASH, "missing")
    sign = f"{SIGNS[verdict.tone]} " if verdict.tone in ("better", "worse") else ""
    return Entry(sign + times(ratio.low, ratio.middle, ratio.high), verdict.tone)


def _state(state: StateSize | Missing) -> Entry:
    if isinstance(state, Missing):
        return Entry(DASH, "missing")
    verdict = state_verdict(state)
    sign = f"{SIGNS[verdict.tone]} " if verdict.tone in ("better", "worse") else ""
    text = f"{sign}{size(state.amount)}"
    return Entry(f"{text}, grows" if state.grows else text, verdict.tone, text)


def _count(value: float | Missing) -> Entry:
    return (
        Entry(DASH, "missing") if isinstance(value, Missing) else Entry(fixed(value, 0), "failed" if value else "same")
    )


def _share(value: float | Missing) -> Entry:
    return Entry(DASH, "missing") if isinstance(value, Missing) else Entry(f"{fixed(100 * value, 1)} %")


def _number(value: float | Missing) -> Entry:
    return Entry(DASH, "missing") if isinstance(value, Missing) else Entry(significant(value))
