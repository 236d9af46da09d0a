"""Attention alone over length: time and memory on logarithmic axes, and from where a candidate beats the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manymax._extras import require
from manymax.compare.report.figures.labels import Label, label_ends, margin
from manymax.compare.report.figures.looks import Figure, look, mark, set_ticks, tokens
from manymax.compare.report.runs import Runs
from manymax.compare.report.svg import STYLE, WIDTH, colour, figure, inline
from manymax.compare.report.values import Row
from manymax.compare.report.wording import duration, size

Curves = Sequence[tuple[Row, list[tuple[int, float]]]]
LEFT, BOTTOM, HEIGHT = 54, 34, 280


@dataclass(frozen=True)
class Panel:
    """A figure: the metric it shows, its name and heading, and the base and spelling of its upright ticks."""

    key: str
    name: str
    heading: str
    base: float
    write: Callable[[float], str]


PANELS = (
    Panel("seconds", "length-time", "Time over length", 10, lambda seconds: duration(seconds, short=True)),
    Panel("peak_bytes", "length-memory", "Memory over length", 4, lambda count: size(count, short=True)),
)
CAPTION = "Attention alone, forward and backward, on log scales. A line ends where it failed or grew too slow."


def draw(runs: Runs, rows: Sequence[Row]) -> list[Figure]:
    """Return time and memory over length, as far as measured."""
    figures = []
    for panel in PANELS:
        every = [(row, measured(runs, row.name, panel.key)) for row in reversed(rows)]
        positive = [(row, [(n, value) for n, value in points if value > 0]) for row, points in every]
        rings = crossovers(runs) if panel.key == "seconds" else {}
        ring = f" A ring marks from where a candidate is faster than {runs.baseline}." if any(rings.values()) else ""
        if curves := [(row, points) for row, points in positive if points]:
            figures.append(Figure(_panel(runs, curves, panel, rings), panel.heading, CAPTION + ring))
    return figures


def lengths(runs: Runs) -> list[int]:
    """Return the lengths that were measured."""
    return list(runs.metrics("length").get("lengths", ()))


def crossovers(runs: Runs) -> dict[str, float | None]:
    """Return the length from which each candidate is faster than the baseline, None where it never was."""
    return dict(runs.metrics("length").get("crossover", {}))


def measured(runs: Runs, name: str, key: str) -> list[tuple[int, float]]:
    """Return (length, value) pairs of a candidate; lengths at which it has none are left out."""
    values = (runs.part("length", name) or {}).get(key) or []
    return [(n, value) for n, value in zip(lengths(runs), values, strict=False) if value is not None]


def _panel(runs: Runs, curves: Curves, panel: Panel, rings: Mapping[str, float | None]) -> str:
    names = [row.name for row, _ in curves]
    with require("matplotlib", "compare").rc_context(STYLE):
        drawn = figure(HEIGHT)
        room = WIDTH - LEFT - margin(names)
        axes = drawn.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, room / WIDTH, 1 - (BOTTOM + 14) / HEIGHT))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ends = []
        for row, points in curves:
            xs, ys = zip(*points, strict=True)
            marks = {**mark(row.position, 0.55), "markeredgewidth": 0}
            axes.plot(xs, ys, gid=f"line-{row.position}", **marks, **look(row.position))
            ends.append(Label(xs[-1], ys[-1], row.name, row.position))
            if crossing := rings.get(row.name):
                _ring(axes, row, points, crossing)
        axes.set_xlabel("tokens")
        longest = max(end.x for end in ends)
        set_ticks(axes.xaxis, [n for n in lengths(runs) if n <= longest], tokens)
        set_ticks(axes.yaxis, _powers(panel.base, axes.get_ylim()), panel.write)
        drawn.canvas.draw()
        label_ends(axes, ends)
        return inline(drawn, panel.name, f"{panel.heading} for {', '.join(names)}")


def _ring(axes: Any, row: Row, points: Sequence[tuple[int, float]], crossing: float) -> None:
    """Ring the crossing on the candidate's own line, between its measured points on log scales."""
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[-1]], strict=True):
        if x0 <= crossing <= x1:
            part = math.log(crossing / x0) / math.log(x1 / x0) if x1 > x0 else 0.0
            hue = colour(row.position)
            ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "color": hue, "zorder": 6}
            axes.plot(crossing, y0 * (y1 / y0) ** part, markeredgewidth=1.8, gid=f"crossover-{row.position}", **ring)
            return


def _powers(base: float, limits: tuple[float, float]) -> list[float]:
    """Return the powers of the base within the limits."""
    first, last = (math.log(limit, base) for limit in limits)
    return [float(base) ** power for power in range(math.ceil(first), math.floor(last) + 1)]
