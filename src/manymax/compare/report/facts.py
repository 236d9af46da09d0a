"""What the page says about the run itself: its size, its plan, its machine, and how to read it."""

from __future__ import annotations

from typing import Any

from manymax.compare.report.caveats import values_of
from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import metric
from manymax.compare.report.wording import clock, counted

SHOWN_ELSEWHERE = ("command", "quality")


def facts(runs: Runs) -> list[tuple[str, str]]:
    """Return what the run was, in a line."""
    found = [("seeds", str(len(runs.seeds)))]
    ended = [line for name in runs.names for line in runs.train(name).values() if line["status"] == "ok"]
    for key in ("steps", "parameters"):
        counts = sorted({count for line in ended if (count := metric(line, key)) is not None})
        if counts:
            found.append((key, " to ".join(f"{count:,.0f}" for count in dict.fromkeys((counts[0], counts[-1])))))
    seconds = sum(line.get("seconds") or 0.0 for line in runs.lines.values())
    found.append(("computing time", clock(seconds)))
    finished = max((line.get("finished") or "" for line in runs.lines.values()), default="")
    return found + ([("finished", finished[:16].replace("T", " ") + " UTC")] if finished else [])


def plan(runs: Runs) -> list[tuple[str, str]]:
    """Return the plan's entries, written out."""
    entries = runs.plan | {"candidates": [one["name"] for one in runs.plan["candidates"]]}
    shown = {key: value for key, value in entries.items() if key not in SHOWN_ELSEWHERE and value not in (None, {}, [])}
    return [(key.replace("_", " "), _written(value)) for key, value in shown.items()]


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def machine(runs: Runs) -> list[tuple[str, str]]:
    """Return the environment's entries in the order of the first job; one that differs between jobs has all values."""
    keys = dict.fromkeys(key for line in runs.lines.values() for key in line.get("environment") or {})
    return [(key, ", ".join(values)) for key in keys if (values := values_of(runs, key))]


def reading(runs: Runs) -> list[tuple[str, str]]:
    """Return what each part of the page means."""
    base, seeds = runs.baseline, counted(len(runs.seeds), "seed")
    quality = f"Mean over {seeds} on data that was not trained on, ± half of its 95 % interval (Student's t)."
    paired = (
        "Within a seed all candidates start from the same weights and see the same batches for as many steps. So the "
        "difference is taken seed by seed, and its interval is often much narrower than that of the quality itself."
    )
    words = (
        "Better and worse: the 95 % interval of the difference leaves out zero. No difference: it covers zero; these "
        "seeds cannot tell the two apart; more seeds might."
    )
    speed = (
        f"Tokens per second as a ratio to {base}'s, timed in turn with it: median, 95 % interval, and the rate itself. "
        "It is marked faster or slower only where the whole interval lies outside the noise floor."
    )
    memory = (
        f"Peak while training, as a ratio to {base}'s of the same seed: median, and lowest to highest seed. State: "
        "what generation keeps of one sequence after a whole context, in all layers, and whether more tokens need more."
    )
    stability = (
        "NaN steps: training steps whose loss or gradient was not finite, in all seeds. Largest score: before the map, "
        "in all seeds. Gradient norm: median step, and the worst one below. Entropy: how evenly a query spreads its "
        "weight, in nats. First token: the share of weight that goes there."
    )
    predictions = (
        "Among 5: targets with one of the five highest scores. Calibration error: how far the share of right "
        "predictions is from the mean confidence of those that are about as confident, on average."
    )
    failed = "A candidate that failed stays in the table with its status; a seed that failed enters no mean."
    return [
        ("Quality", quality),
        (f"Versus {base}", paired),
        ("Verdict", words),
        ("Speed", speed),
        ("Memory", memory),
        *([("Predictions", predictions)] if runs.plan["site"] == "output" else []),
        ("Stability", stability),
        ("Failures", failed),
    ]
