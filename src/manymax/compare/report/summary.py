"""What the tables and figures say about each candidate, computed from the jobs' lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from statistics import fmean, median
from typing import Any

from manymax.compare.report.runs import Runs
from manymax.compare.report.values import (
    Estimate,
    Failure,
    Missing,
    Predictions,
    Ratio,
    Row,
    Stability,
    StateSize,
    Verdict,
)
from manymax.compare.results import Line
from manymax.compare.stats import paired_difference

KINDS = {"speed": "timing", "length": "over length"}  # the jobs that measure all candidates in one go, in words


def summarise(runs: Runs) -> list[Row]:
    """Return a row for each candidate: the baseline, then best quality first, then those without a quality."""
    rows = [_row(runs, name, position) for position, name in enumerate(runs.names)]
    sign = 1 if runs.plan["quality"]["better"] == "lower" else -1

    def place(row: Row) -> tuple[int, float]:
        if row.position == 0:
            return 0, 0.0
        return (1, sign * row.quality.mean) if isinstance(row.quality, Estimate) else (2, row.position)

    return sorted(rows, key=place)


def noise_floor(runs: Runs) -> float | None:
    """Return by how much two copies of the baseline differed in the timing, or None if they were not timed."""
    value = runs.metrics("speed").get("noise_floor")
    return None if value is None else float(value)


def _row(runs: Runs, name: str, position: int) -> Row:
    lines = runs.train(name)
    quality, difference = _quality(runs, name), _difference(runs, name)
    failures = [
        Failure(name, f"seed {seed}", line["status"], line.get("message", ""))
        for seed, line in lines.items()
        if line["status"] != "ok"
    ]
    backends = {
        str(line["metrics"]["backend"]) for line in lines.values() if (line.get("metrics") or {}).get("backend")
    }
    return Row(
        name=name,
        position=position,
        backends=sorted(backends),
        seeds=quality.seeds if isinstance(quality, Estimate) else 0,
        quality=quality,
        difference=difference,
        verdict=_verdict(runs, name, failures, difference),
        train=_speed(runs, name, "train"),
        generate=_speed(runs, name, "generate"),
        memory=_memory(runs, name),
        state=_state(runs, name),
        stability=_stability(list(lines.values())),
        predictions=Predictions(**{field.name: _mean(runs, name, field.name) for field in fields(Predictions)}),
        failures=failures + [f for kind in KINDS for f in _shared_failure(runs, name, kind)],
    )


def metric(line: Line | None, key: str) -> float | None:
    """Return one measured number of a job, or None if it has none."""
    value = (line.get("metrics") or {}).get(key) if line else None
    return None if value is None else float(value)


def _finished(runs: Runs, name: str, key: str) -> list[float | None]:
    """Return a metric for each planned seed; None for a seed that did not end well."""
    lines = runs.train(name)
    found = (lines.get(seed) for seed in runs.seeds)
    return [metric(line, key) if line and line["status"] == "ok" else None for line in found]


def _why_missing(runs: Runs, name: str) -> Missing:
    lines = runs.train(name)
    if not lines:
        return Missing("not run yet")
    statuses = Counter(line["status"] for line in lines.values() if line["status"] != "ok")
    return Missing(statuses.most_common(1)[0][0] if statuses else "not measured")


def _estimate(values: Sequence[float | None], others: Sequence[float | None]) -> Estimate | None:
    difference = paired_difference(values, others)
    if difference.pairs == 0:
        return None
    reach = None if difference.high is None else difference.high - difference.mean
    return Estimate(difference.mean, reach, difference.pairs, difference.clear)


def _quality(runs: Runs, name: str) -> Estimate | Missing:
    values = _finished(runs, name, "quality")
    return _estimate(values, [0.0] * len(values)) or _why_missing(runs, name)


def _mean(runs: Runs, name: str, key: str) -> float | Missing:
    values = [value for value in _finished(runs, name, key) if value is not None]
    return fmean(values) if values else _why_missing(runs, name)


def _difference(runs: Runs, name: str) -> Estimate | Missing:
    if name == runs.baseline:
        return Missing("baseline")
    values, others = _finished(runs, name, "quality"), _finished(runs, runs.baseline, "quality")
    if not any(value is not None for value in values):
        return _why_missing(runs, name)
    if not any(value is not None for value in others):
        return Missing(f"no {runs.baseline} to compare with")
    return _estimate(values, others) or Missing(f"no seed shared with {runs.baseline}")


def _verdict(runs: Runs, name: str, failures: Sequence[Failure], difference: Estimate | Missing) -> Verdict:
    if failures:
        statuses = Counter(failure.status for failure in failures)
        worst = statuses.most_common(1)[0][0] if len(statuses) == 1 else "failed"
        ended = len(runs.train(name))
        return Verdict("failed", worst, "" if len(failures) == ended else f"{len(failures)} of {ended} seeds")
    if name == runs.baseline:
        return Verdict("baseline", "baseline") if runs.train(name) else Verdict("missing", "not run yet")
    if isinstance(difference, Missing):
        return Verdict("missing", difference.reason)
    if difference.reach is None:
        return Verdict("unclear", "undecided", "1 seed")
    if not difference.clear:
        return Verdict("same", "no difference")
    better = (difference.mean < 0) == (runs.plan["quality"]["better"] == "lower")
    return Verdict("better", "better") if better else Verdict("worse", "worse")


def shared(runs: Runs, name: str, kind: str) -> dict[str, Any] | Missing:
    """Return a candidate's part of the job that measures all candidates in one go."""
    line = runs.single(kind)
    if line is None:
        return Missing("not run yet")
    part = runs.part(kind, name)
    if part is None:
        return Missing("not measured" if line["status"] == "ok" else line["status"])
    return part if part["status"] == "ok" else Missing(part["status"])


def _speed(runs: Runs, name: str, phase: str) -> Ratio | Missing:
    part = shared(runs, name, "speed")
    if isinstance(part, Missing):
        return part
    ratio, amount = part.get(f"{phase}_ratio"), part.get(f"{phase}_tokens_per_second")
    if ratio is None or None in ratio:
        return Missing("not measured")
    low, middle, high = ratio
    return Ratio(low, middle, high, amount)


def _memory(runs: Runs, name: str) -> Ratio | Missing:
    mine, base = (_finished(runs, which, "peak_memory_bytes") for which in (name, runs.baseline))
    ratios = [m / b for m, b in zip(mine, base, strict=True) if m is not None and b]
    if not ratios:
        own = [value for value in mine if value is not None]
        return Missing(f"no {runs.baseline} to compare with") if own else _why_missing(runs, name)
    amount = median(value for value in mine if value is not None)
    return Ratio(min(ratios), median(ratios), max(ratios), amount)


def _state(runs: Runs, name: str) -> StateSize | Missing:
    part, base = (shared(runs, one, "speed") for one in (name, runs.baseline))
    if isinstance(part, Missing):
        return part
    sizes = part.get("state_bytes") or []
    if len(sizes) < 2:
        return Missing("keeps none")
    (_, half), (tokens, amount) = sizes
    theirs = [] if isinstance(base, Missing) else base.get("state_bytes") or []
    return StateSize(tokens, amount, amount / theirs[-1][1] if theirs else None, amount > half)


def _stability(lines: Sequence[Line]) -> Stability:
    reason = Missing("not measured" if lines else "not run yet")

    def over(key: str, combine: Callable[[Sequence[float]], float]) -> float | Missing:
        values = [value for line in lines if (value := metric(line, key)) is not None]
        return float(combine(values)) if values else reason

    return Stability(
        nan_steps=over("nan_steps", sum),
        largest_score=over("largest_score", max),
        grad_norm_median=over("grad_norm_median", median),
        grad_norm_max=over("grad_norm_max", max),
        entropy=over("entropy", fmean),
        first_token_share=over("first_token_share", fmean),
    )


def _shared_failure(runs: Runs, name: str, kind: str) -> list[Failure]:
    part = runs.part(kind, name)
    if part is None or part["status"] == "ok":
        return []
    return [Failure(name, KINDS[kind], part["status"], part["message"])]
