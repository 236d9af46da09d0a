"""The page's first table: a row a candidate, with everything that was measured about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manymax.compare.report.cells import SIGNS, Cell, dash
from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import noise_floor
from manymax.compare.report.svg import variable
from manymax.compare.report.values import (
    Estimate,
    Missing,
    Predictions,
    Ratio,
    Row,
    Stability,
    StateSize,
    Verdict,
    memory_verdict,
    speed_verdict,
    state_verdict,
)
from manymax.compare.report.wording import (
    DASH,
    TIMES,
    counted,
    fixed,
    percent,
    plus_minus,
    rate,
    significant,
    size,
    span,
    times,
)

# The figures' marks as paths in a box of 12, in the order of `looks.MARKS`.
MARK_PATHS = (
    "M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
    "M1.5 1.5h9v9h-9z",
    "M6 1L11 11H1z",
    "M6 0L12 6L6 12L0 6z",
    "M6 11L1 1H11z",
    "M4 1h4v3h3v4H8v3H4V8H1V4h3z",
    "M3.2 1L6 3.8L8.8 1L11 3.2L8.2 6L11 8.8L8.8 11L6 8.2L3.2 11L1 8.8L3.8 6L1 3.2z",
    "M6 1L11 4.7L9.1 10.6H2.9L1 4.7z",
    "M6 0.8L10.6 3.4V8.6L6 11.2L1.4 8.6V3.4z",
)


@dataclass(frozen=True)
class RowView:
    """A row as the template shows it; groups hold the cells under each group of columns."""

    name: str
    below: str
    baseline: bool
    colour: str
    mark: str
    groups: Sequence[Sequence[Cell]]


def groups(runs: Runs) -> list[tuple[str, list[str]]]:
    """Return the columns under their group headings."""
    base = runs.baseline
    predictions = [("predictions", ["accuracy", "among 5", "calibration error"])] if _heads(runs) else []
    return [
        (runs.plan["quality"]["name"], ["verdict", f"vs {base}", "mean"]),
        (f"speed / {base}", ["training", "generation"]),
        (f"memory / {base}", ["training peak", "state"]),
        *predictions,
        ("stability", ["NaN steps", "largest score", "gradient norm", "entropy", "first token"]),
    ]


def row_view(runs: Runs, row: Row) -> RowView:
    """Return a candidate's row."""
    noise = noise_floor(runs)
    speeds = [_ratio(ratio, speed_verdict(ratio, noise), row, _rate) for ratio in (row.train, row.generate)]
    return RowView(
        name=row.name,
        below=", ".join(row.backends),
        baseline=row.position == 0,
        colour=variable(row.position),
        mark=MARK_PATHS[row.position % len(MARK_PATHS)],
        groups=[
            [_word(row.verdict), _difference(runs, row), _quality(runs, row.quality)],
            speeds,
            [_ratio(row.memory, memory_verdict(row.memory), row, size), _state(row.state, row.position)],
            *([_predictions(row.predictions)] if _heads(runs) else []),
            _stability(row.stability),
        ],
    )


def _heads(runs: Runs) -> bool:
    """Return whether output layers are compared."""
    return bool(runs.plan["site"] == "output")


def _word(verdict: Verdict) -> Cell:
    below = (verdict.detail,) if verdict.detail else ()
    if verdict.tone == "missing":
        return Cell(DASH, (verdict.word, *below), "word missing")
    return Cell(f"{SIGNS.get(verdict.tone, '')} {verdict.word}".strip(), below, f"word {verdict.tone}")


def _difference(runs: Runs, row: Row) -> Cell:
    found = row.difference
    if isinstance(found, Missing):
        return Cell("") if row.position == 0 else dash(found.reason)
    below = (counted(found.seeds, "seed"),) if found.seeds < len(runs.seeds) else ()
    return Cell(plus_minus(found.mean, found.reach, sign=True), below)


def _quality(runs: Runs, value: Estimate | Missing) -> Cell:
    if isinstance(value, Missing):
        return dash(value.reason)
    below = (f"{value.seeds} of {len(runs.seeds)} seeds",) if value.seeds < len(runs.seeds) else ()
    return Cell(plus_minus(value.mean, value.reach), below + (("no interval",) if value.reach is None else ()))


def _ratio(ratio: Ratio | Missing, verdict: Verdict, row: Row, write: Callable[[float], str]) -> Cell:
    if isinstance(ratio, Missing):
        return dash(ratio.reason)
    amount = () if ratio.amount is None else (write(ratio.amount),)
    if row.position == 0:
        return Cell("1", amount)
    sign = f"{SIGNS[verdict.tone]} " if verdict.tone in ("better", "worse") else ""
    interval = (between,) if (between := span(ratio.low, ratio.high)) else ()
    return Cell(sign + times(ratio.low, ratio.middle, ratio.high), interval + amount, verdict.tone)


def _state(state: StateSize | Missing, position: int) -> Cell:
    if isinstance(state, Missing):
        return dash(state.reason)
    verdict = state_verdict(state)
    sign = f"{SIGNS[verdict.tone]} " if verdict.tone in ("better", "worse") else ""
    ratio = "" if state.ratio is None else f"{significant(state.ratio, 2)}{TIMES}"
    below = (size(state.amount), "grows" if state.grows else "constant")
    return Cell("1" if position == 0 else sign + ratio, below, "" if position == 0 else verdict.tone)


def _rate(per_second: float) -> str:
    return f"{rate(per_second)} tokens/s"


def _stability(found: Stability) -> list[Cell]:
    nan, worst = found.nan_steps, found.grad_norm_max
    return [
        _plain(nan, lambda count: fixed(count, 0), style="" if isinstance(nan, Missing) or nan == 0 else "failed"),
        _plain(found.largest_score, significant),
        _plain(
            found.grad_norm_median, significant, () if isinstance(worst, Missing) else (f"max {significant(worst)}",)
        ),
        _plain(found.entropy, significant),
        _plain(found.first_token_share, percent),
    ]


def _predictions(found: Predictions) -> list[Cell]:
    shares = (found.accuracy, found.top5_accuracy, found.calibration_error)
    return [_plain(share, lambda value: f"{fixed(100 * value, 1)} %") for share in shares]


def _plain(value: float | Missing, write: Callable[[float], str], below: tuple[str, ...] = (), style: str = "") -> Cell:
    return dash(value.reason) if isinstance(value, Missing) else Cell(write(value), below, style)
