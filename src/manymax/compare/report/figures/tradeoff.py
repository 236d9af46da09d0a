"""Quality against speed and against memory: one point a candidate, the baseline where the two lines cross."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from manymax._extras import require
from manymax.compare.report.figures.labels import Box, Label, label_points
from manymax.compare.report.figures.looks import Figure, dot, rule
from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import noise_floor
from manymax.compare.report.svg import GRID, STYLE, colour, figure, inline
from manymax.compare.report.values import Estimate, Missing, Ratio, Row

PANELS: tuple[tuple[str, str, Callable[[Row], Ratio | Missing]], ...] = (
    ("tradeoff-train", "training speed", lambda row: row.train),
    ("tradeoff-generate", "generation speed", lambda row: row.generate),
    ("tradeoff-memory", "memory", lambda row: row.memory),
)


@dataclass(frozen=True)
class Point:
    """A candidate: a ratio across, the paired difference in quality up."""

    row: Row
    across: Ratio
    up: Estimate


def draw(runs: Runs, rows: Sequence[Row]) -> list[Figure]:
    """Return a figure for each of speed and memory that was measured for anybody besides the baseline."""
    figures = []
    for name, what, pick in PANELS:
        points = []
        for row in rows:
            across, up = pick(row), Estimate(0.0, None, row.seeds) if row.position == 0 else row.difference
            if isinstance(across, Ratio) and isinstance(up, Estimate):
                points.append(Point(row, across, up))
        if any(point.row.position for point in points):
            figures.append(_panel(runs, points, name, what))
    return figures


def _panel(runs: Runs, points: Sequence[Point], name: str, what: str) -> Figure:
    memory, noise = what == "memory", noise_floor(runs)
    unit = runs.plan["quality"]["name"]
    with require("matplotlib", "compare").rc_context(STYLE):
        drawn = figure(280)
        axes = drawn.add_axes((0.17, 0.13, 0.81, 0.84))
        for point in points:
            _draw(axes, point)
        rule(axes, x=1.0, y=0.0)
        if noise and not memory:
            axes.axvspan(1 / (1 + noise), 1 + noise, color=GRID, alpha=0.7, linewidth=0, zorder=0.5)
        _limits(axes, points)
        if runs.plan["quality"]["better"] == "lower":
            axes.invert_yaxis()
        if memory:
            axes.invert_xaxis()  # up and right is good in every panel
        axes.set_xlabel(f"{what}, {runs.baseline} = 1 ({'less' if memory else 'faster'} →)")
        axes.set_ylabel(f"difference in {unit} (better →)")
        axes.locator_params(nbins=6)
        drawn.canvas.draw()
        labels = [Label(point.across.middle, point.up.mean, point.row.name, point.row.position) for point in points]
        label_points(axes, labels, _obstacles(axes, points))
        svg = inline(drawn, name, f"{unit} against {what} for {', '.join(point.row.name for point in points)}")
    return Figure(svg, f"Quality against {what}", _caption(points, memory=memory))


def _limits(axes: Any, points: Sequence[Point]) -> None:
    """Show all points; a bar may leave the axes where it is longer than the points lie apart."""
    axes.margins(0.12)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.95), max(right, 1.05))
    most = _longest_bar(points)
    ends = [point.up.mean + sign * min(point.up.reach or 0.0, most) for point in points for sign in (-1, 1)]
    pad = 0.12 * (max(ends) - min(ends)) or 0.1
    axes.set_ylim(min(ends) - pad, max(ends) + pad)


def _longest_bar(points: Sequence[Point]) -> float:
    """Return up to which length bars make the axes grow."""
    return max(abs(point.up.mean) for point in points) or max(point.up.reach or 0.1 for point in points)


def _caption(points: Sequence[Point], *, memory: bool) -> str:
    several = any(point.up.reach is not None for point in points)
    up = "Upright bars: 95 % intervals over paired seeds" if several else "One seed: no interval for quality"
    across = (
        "from the lowest seed to the highest" if memory else "95 % intervals over timing rounds; grey: the noise floor"
    )
    hollow = " Hollow: failed on some seeds." if any(point.row.verdict.tone == "failed" for point in points) else ""
    cut = any((point.up.reach or 0.0) > _longest_bar(points) for point in points)
    beyond = " Bars that reach the frame go on beyond it." if cut else ""
    return f"Up and right is better. {up}; level bars: {across}.{hollow}{beyond}"


def _draw(axes: Any, point: Point) -> None:
    position, across, up = point.row.position, point.across, point.up
    axes.errorbar(
        across.middle,
        up.mean,
        xerr=[[across.middle - across.low], [across.high - across.middle]],
        yerr=up.reach,
        ecolor=colour(position),
        elinewidth=1.2,
        alpha=0.6,
        linestyle="none",
        zorder=4,
    )
    failed = point.row.verdict.tone == "failed"
    axes.plot(across.middle, up.mean, gid=f"point-{position}", **dot(position, failed=failed))


def _obstacles(axes: Any, points: Sequence[Point]) -> list[Box]:
    """Return the lines through the baseline and all bars as thin boxes in pixels."""
    frame = axes.get_window_extent()
    x, y = axes.transData.transform((1.0, 0.0))
    boxes = [(x - 1, frame.y0, x + 1, frame.y1), (frame.x0, y - 1, frame.x1, y + 1)]
    for point in points:
        reach = point.up.reach or 0.0
        corners = [(point.across.low, point.up.mean - reach), (point.across.high, point.up.mean + reach)]
        (one, two), (three, four) = axes.transData.transform(corners)
        x, y = axes.transData.transform((point.across.middle, point.up.mean))
        boxes += [(min(one, three), y - 1, max(one, three), y + 1), (x - 1, min(two, four), x + 1, max(two, four))]
    return boxes
