"""Learning curves: the mean over seeds, with a band from the lowest seed to the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manymax._extras import require
from manymax.compare.report.figures.labels import Label, label_ends, margin
from manymax.compare.report.figures.looks import Figure, look, rule
from manymax.compare.report.runs import Runs
from manymax.compare.report.svg import STYLE, WIDTH, colour, figure, inline
from manymax.compare.report.values import Row
from manymax.compare.report.wording import capital

Series = dict[int, float]  # step -> value
START = 0.2  # part of training that the vertical range leaves out: everything falls steeply there
LEFT, BOTTOM, HEIGHT = 40, 34, 250


@dataclass(frozen=True)
class Curves:
    """A panel: for each candidate, a curve of each seed."""

    name: str
    heading: str
    caption: str
    series: Mapping[str, Sequence[Series]]
    zero: bool = False
    log: bool = False


def draw(runs: Runs, rows: Sequence[Row]) -> list[Figure]:
    """Return quality over steps, its difference to the baseline, and the training loss, as far as recorded."""
    quality, names = runs.plan["quality"], [row.name for row in rows]
    better, unit = quality["better"], str(quality["name"])
    start = f"{_band(runs)} The first {100 * START:.0f} % of the steps may lie outside."
    panels = [
        Curves(
            "curve-quality",
            f"{capital(unit)} on held-out data",
            f"{better.capitalize()} is better. {start}",
            {name: _curves(runs, name, "quality", "value") for name in names},
        ),
        Curves(
            "curve-difference",
            f"Difference to {runs.baseline}",
            f"In {unit}, seed by seed; {better} is better. {start}",
            {name: _paired(runs, name) for name in names if name != runs.baseline},
            zero=True,
        ),
        Curves(
            "curve-loss",
            "Training loss",
            f"Means over short stretches of steps. {start}",
            {name: _curves(runs, name, "train", "loss") for name in names},
        ),
    ]
    return [figure for panel in panels for figure in _panel(rows, panel)]


def draw_gradients(runs: Runs, rows: Sequence[Row]) -> list[Figure]:
    """Return the norm of the gradient over steps, if it was recorded."""
    series = {row.name: _curves(runs, row.name, "grad_norm", "value") for row in rows}
    positive = all(value > 0 for several in series.values() for one in several for value in one.values())
    return _panel(rows, Curves("curve-gradient", "Gradient norm over steps", _band(runs), series, log=positive))


def _band(runs: Runs) -> str:
    return "Bands span the seeds." if len(runs.seeds) > 1 else "One seed: no band."


def _panel(rows: Sequence[Row], panel: Curves) -> list[Figure]:
    """Return the panel as a list of one figure, or of none where nothing was recorded."""
    drawn_last = sorted(rows, key=lambda row: row.position, reverse=True)  # the baseline last, hence on top
    shown = [(row, curves) for row in drawn_last if (curves := [one for one in panel.series.get(row.name, ()) if one])]
    if not shown:
        return []
    names = [row.name for row, _ in shown]
    with require("matplotlib", "compare").rc_context(STYLE):
        drawn = figure(HEIGHT)
        room = WIDTH - LEFT - margin(names)
        axes = drawn.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, room / WIDTH, 1 - (BOTTOM + 14) / HEIGHT))
        axes.grid(visible=False, axis="x")
        if panel.log:
            axes.set_yscale("log")
        if panel.zero:
            rule(axes, y=0.0)
        ends = [_line(axes, row, curves) for row, curves in shown]
        _limits(axes, panel, [one for _, curves in shown for one in curves])
        axes.set_xlabel("step")
        drawn.canvas.draw()
        label_ends(axes, ends)
        return [
            Figure(inline(drawn, panel.name, f"{panel.heading} for {', '.join(names)}"), panel.heading, panel.caption)
        ]


def _limits(axes: Any, panel: Curves, curves: Sequence[Series]) -> None:
    """Fit the axes to what comes after the steep start."""
    last = max(step for one in curves for step in one)
    axes.set_xlim(0, last)
    axes.locator_params(axis="x", nbins=5)
    if panel.log:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
        return
    late = [value for one in curves for step, value in one.items() if step >= START * last] + [0.0] * panel.zero
    pad = 0.06 * (max(late) - min(late)) or 0.1
    axes.set_ylim(min(late) - pad, max(late) + pad)
    axes.locator_params(axis="y", nbins=5)


def _line(axes: Any, row: Row, curves: Sequence[Series]) -> Label:
    """Draw one candidate; return its name at the end of its line."""
    steps = sorted({step for one in curves for step in one})
    at = [[one[step] for one in curves if step in one] for step in steps]
    means = [sum(values) / len(values) for values in at]
    if len(curves) > 1:
        low, high = [min(values) for values in at], [max(values) for values in at]
        band = axes.fill_between(steps, low, high, color=colour(row.position), alpha=0.16, linewidth=0)
        band.set_gid(f"band-{row.position}")
    axes.plot(steps, means, gid=f"line-{row.position}", **look(row.position))
    return Label(steps[-1], means[-1], row.name, row.position)


def _curves(runs: Runs, name: str, curve: str, key: str) -> list[Series]:
    """Return a curve of each seed."""
    return [_series(line, curve, key) for line in runs.train(name).values()]


def _series(line: Mapping[str, Any], curve: str, key: str) -> Series:
    """Return a recorded curve; values that were not finite are stored as null and are left out."""
    found = (line.get("curves") or {}).get(curve) or {}
    pairs = zip(found.get("step", ()), found.get(key, ()), strict=True)
    return {step: value for step, value in pairs if value is not None}


def _paired(runs: Runs, name: str) -> list[Series]:
    """Return candidate minus baseline at the steps that both recorded, for each seed that both ran."""
    mine, base = runs.train(name), runs.train(runs.baseline)
    differences = []
    for seed in sorted(mine.keys() & base.keys()):
        one, two = (_series(lines[seed], "quality", "value") for lines in (mine, base))
        differences.append({step: one[step] - two[step] for step in sorted(one.keys() & two.keys())})
    return differences
