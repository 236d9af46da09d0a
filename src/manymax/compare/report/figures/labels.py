"""Names in figures, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from manymax.compare.report.figures.looks import mark
from manymax.compare.report.svg import INK, colour

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels

LONGEST = 16  # characters of a name in a figure; the tables have the whole name
SIZE = 11
HEIGHT = 13.0  # from one label to the next
CHARACTER = 6.6  # width of a character of that size, bold ones included
REACHES = (9, 16, 24, 34, 46, 60)
DIRECTIONS = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))


@dataclass(frozen=True)
class Label:
    """A candidate's name at a point of the axes, in data coordinates."""

    x: float
    y: float
    name: str
    position: int


def shorten(name: str) -> str:
    """Return a name that fits beside a figure."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def margin(names: Sequence[str]) -> float:
    """Return the width in pixels that names to the right of the axes take, with their marks."""
    return 32 + width(names)


def width(names: Sequence[str]) -> float:
    """Return the width in pixels of the longest of the names."""
    return CHARACTER * max(len(shorten(name)) for name in names)


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart as little as possible (least squares), so that neighbours are `gap` apart.

    Args:
        heights: where the labels would be, in any order.
        gap: least distance.
        low: lowest place.
        high: highest place; exceeded only if the labels do not fit.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[tuple[float, int]] = []  # (sum, count) of isotonic regression on height - rank * gap
    for rank, i in enumerate(order):
        total, count = heights[i] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            total, count = total + blocks[-1][0], count + blocks[-1][1]
            blocks.pop()
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    top = max(low, high - gap * (len(heights) - 1))
    placed = [0.0] * len(heights)
    for rank, i in enumerate(order):
        placed[i] = min(max(starts[rank], low), top) + rank * gap
    return placed


def label_ends(axes: Any, ends: Sequence[Label]) -> None:
    """Write names to the right of the axes, each with its mark and a thin line to the end of its own line."""
    axes.set_autoscale_on(False)  # or what is drawn in pixels moves the limits
    frame = axes.get_window_extent()
    points = [axes.transData.transform((end.x, end.y)) for end in ends]
    heights = spread([point[1] for point in points], HEIGHT, frame.y0 + 4, frame.y1 - 4)
    for end, (x, y), height in zip(ends, points, heights, strict=True):
        hue, at = colour(end.position), frame.x1 + 18
        y = min(max(y, frame.y0), frame.y1)  # noqa: PLW2901  (an end outside the axes is pointed at from the edge)
        axes.plot([x + 2, at], [y, height], color=hue, linewidth=0.8, alpha=0.6, transform=None, clip_on=False)
        axes.plot(at, height, **mark(end.position, 0.75), color=hue, transform=None, clip_on=False)
        _write(axes, end, at + 7, height, va="center")


def label_points(axes: Any, labels: Sequence[Label], obstacles: Sequence[Box]) -> None:
    """Write names beside points.

    Args:
        axes: where; its limits must be final.
        labels: names with their points.
        obstacles: boxes that are better left free, though less so than other names and the points themselves.
    """
    axes.set_autoscale_on(False)
    renderer, frame = axes.figure.canvas.get_renderer(), axes.get_window_extent()
    centres = [axes.transData.transform((one.x, one.y)) for one in labels]
    points = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y in centres]
    taken: list[Box] = []
    for one, (x, y) in zip(labels, centres, strict=True):
        text = _write(axes, one, 0, 0, va="bottom")
        size = text.get_window_extent(renderer)
        choices = [_beside(x, y, size, reach, way) for reach in REACHES for way in DIRECTIONS]

        def cost(box: Box, x: float = x, y: float = y) -> float:
            covered = sum(_overlap(box, other) for other in (*taken, *points))
            crossed = sum(_overlap(box, other) for other in obstacles)
            return 20 * covered + crossed + 50 * _outside(box, frame) + _gap(box, x, y)

        best = min(choices, key=cost)
        text.set_position(best[:2])
        taken.append(best)
        if _gap(best, x, y) > 14:
            ends = [min(max(x, best[0]), best[2]), x], [min(max(y, best[1]), best[3]), y]
            axes.plot(*ends, color=colour(one.position), linewidth=0.8, alpha=0.6, transform=None, zorder=2)


def _write(axes: Any, label: Label, x: float, y: float, va: str) -> Any:
    weight = "bold" if label.position == 0 else "normal"
    return axes.text(
        x, y, shorten(label.name), transform=None, fontsize=SIZE, color=INK, fontweight=weight, va=va, zorder=6
    )


def _beside(x: float, y: float, size: Any, reach: float, way: tuple[int, int]) -> Box:
    """Return the box of a text that lies so far from a point in a direction."""
    across, up = way
    wide = size.width + 6  # the page's font may be wider than matplotlib's
    slant = 0.7 if across and up else 1.0
    left = x + slant * reach * across - wide * (1 - across) / 2
    bottom = y + slant * reach * up - size.height * (1 - up) / 2
    return left, bottom, left + wide, bottom + size.height


def _overlap(one: Box, two: Box) -> float:
    across = min(one[2], two[2]) - max(one[0], two[0])
    up = min(one[3], two[3]) - max(one[1], two[1])
    return across * up if across > 0 and up > 0 else 0.0


def _outside(box: Box, frame: Any) -> float:
    """Return by how many pixels a box sticks out."""
    sides = (frame.x0 - box[0], box[2] - frame.x1, frame.y0 - box[1], box[3] - frame.y1)
    return float(sum(max(0.0, side) for side in sides))


def _gap(box: Box, x: float, y: float) -> float:
    """Return the distance from a point to a box."""
    across = max(box[0] - x, 0.0, x - box[2])
    up = max(box[1] - y, 0.0, y - box[3])
    return math.hypot(across, up)
