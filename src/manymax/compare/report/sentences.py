"""The result in words: one sentence on quality, one on speed."""

from __future__ import annotations

from collections.abc import Sequence

from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import noise_floor
from manymax.compare.report.values import Estimate, Ratio, Row, speed_verdict
from manymax.compare.report.wording import listed, percent, plus_minus, significant, times

_STATES = {
    "timeout": "ran into the time limit",
    "out of memory": "ran out of memory",
    "unsupported": "is not supported here",
}


def title(runs: Runs) -> str:
    """Return what was compared with what."""
    return f"{runs.baseline} against {listed(runs.names[1:], most=2)}" if runs.names[1:] else f"{runs.baseline} alone"


def quality_sentence(runs: Runs, rows: Sequence[Row]) -> str:
    """Return the verdict on quality as one sentence that covers every candidate."""
    baseline, unit = runs.baseline, runs.plan["quality"]["name"]
    if not rows[1:]:
        return f"{baseline} ran alone, so there is nothing to compare it with."
    if not isinstance(rows[0].quality, Estimate):
        return f"Nothing can be compared: {baseline}, the baseline, has no finished training."
    parts = [_relation(rows, tone, unit) for tone in ("better", "same", "worse")]
    by_state: dict[str, list[str]] = {}
    for row in rows[1:]:
        if row.verdict.tone in ("failed", "missing"):
            by_state.setdefault(_state(row), []).append(row.name)
    parts += [f"{listed(names)} {state}" for state, names in by_state.items()]
    text = _joined([part for part in parts if part])
    if any(row.verdict.tone == "unclear" for row in rows):
        scores = [(row.quality.mean, row.name) for row in rows if isinstance(row.quality, Estimate)]
        mean, name = (min if runs.plan["quality"]["better"] == "lower" else max)(scores)
        best = f"One seed gives no interval, so nothing is decided: {name} scored best with {significant(mean)} {unit}"
        text = f"{best}, {text}" if text else best
    else:
        text = f"Against {baseline}, {text}"
    return f"{text}."


def speed_sentence(runs: Runs, rows: Sequence[Row]) -> str:
    """Return the verdict on training speed as one sentence, or nothing if it was not timed."""
    noise, baseline = noise_floor(runs), runs.baseline
    timed = [(row.name, row.train) for row in rows[1:] if isinstance(row.train, Ratio)]
    if not timed:
        return ""
    name, ratio = max(timed, key=lambda pair: pair[1].middle)
    if speed_verdict(ratio, noise).tone == "better":
        return f"{name} trains fastest, at {times(ratio.low, ratio.middle, ratio.high)} the speed of {baseline}."
    within = "" if noise is None else f" beyond the noise of {percent(noise)}"
    level = [name for name, own in timed if speed_verdict(own, noise).tone == "same"]
    keeps = f"; {listed(level)} {'keeps' if len(level) == 1 else 'keep'} up with it" if level else ""
    return f"None trains faster than {baseline}{within}{keeps}."


def noise_sentence(runs: Runs) -> str:
    """Return the noise floor in words."""
    noise = noise_floor(runs)
    if noise is None:
        return "Speed was not timed in this run, so no noise floor was measured."
    return (
        f"Before the candidates were timed, two copies of {runs.baseline} were timed against each other. They do the "
        f"same work, yet the interval of their speed ratio reaches {percent(noise)} away from 1: a difference in speed "
        f"that is smaller says nothing."
    )


def _relation(rows: Sequence[Row], tone: str, unit: str) -> str:
    mine = [row for row in rows[1:] if row.verdict.tone == tone]
    if not mine:
        return ""
    names, many = listed([row.name for row in mine]), len(mine) > 1
    if tone == "same":
        return f"{names} {'make' if many else 'makes'} no difference"
    found = mine[0].difference
    by = f" by {plus_minus(abs(found.mean), found.reach)} {unit}" if not many and isinstance(found, Estimate) else ""
    return f"{names} {'are' if many else 'is'} {tone}{by}"


def _state(row: Row) -> str:
    if row.verdict.tone == "missing":
        return f"has no result ({row.verdict.word})"
    state = _STATES.get(row.verdict.word, row.verdict.word)
    return f"{state} on {row.verdict.detail}" if row.verdict.detail else state


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}" if parts else ""
