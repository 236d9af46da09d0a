"""Time and memory of output layers over the number of classes, as an SVG file that follows light and dark."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import NamedTuple

from manymax._extras import require
from manymax.bench.contender import Case
from manymax.bench.heads import lines
from manymax.compare.report.figures.looks import look, mark, set_ticks
from manymax.compare.report.svg import STYLE, WIDTH, figure, inline, variable
from manymax.compare.report.wording import duration, size

LEFT, BOTTOM, HEIGHT, ROW, TITLE = 54, 34, 260, 20, 28
Cases = Sequence[tuple[int, Case]]
Curve = tuple[int, str, list[tuple[int, float]]]  # position, name, points


class Panel(NamedTuple):
    """A figure: the value it shows, its heading, and the base and spelling of its upright ticks."""

    key: str
    heading: str
    base: float
    write: Callable[[float], str]


PANELS = (
    Panel("seconds", "Time of a training step", 10, lambda seconds: duration(seconds, short=True)),
    Panel("peak_bytes", "Memory of a training step", 16, lambda count: size(count, short=True)),
)


def chart(cases: Cases) -> str:
    """Return both figures side by side over a legend, as one SVG document."""
    names = [name for name, _ in lines(cases, "seconds")]
    width, height = 2 * WIDTH + 24, TITLE + HEIGHT + 12 + ROW * len(names)
    parts = []
    for index, panel in enumerate(PANELS):
        x = index * (WIDTH + 24)
        parts.append(f'<text x="{x + LEFT}" y="18" class="heading">{panel.heading}</text>')
        place = f'<svg x="{x}" y="{TITLE}" width="{WIDTH}" height="{HEIGHT}" '
        parts.append(_panel(cases, panel).replace("<svg ", place, 1))
    for position, name in enumerate(names):
        y = TITLE + HEIGHT + 20 + ROW * position
        seen = look(position)
        dashes = "" if seen["linestyle"] == "-" else ",".join(f"{2 * one:g}" for one in seen["linestyle"][1])
        stroke = f'stroke="var({variable(position)})" stroke-width="{seen["linewidth"]}" stroke-dasharray="{dashes}"'
        parts.append(f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + 28}" y2="{y - 4}" {stroke}/>')
        parts.append(f'<text x="{LEFT + 36}" y="{y}">{html.escape(name)}</text>')
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">'
    )
    paper = '<rect width="100%" height="100%" class="paper"/>'
    return "\n".join([opening, f"<style>{_style()}</style>", paper, *parts, "</svg>", ""])


def _style() -> str:
    """Return the report's colours, light and dark, and what the legend looks like."""
    page = files("manymax.compare.report").joinpath("style.css").read_text(encoding="utf-8")
    found = re.match(r":root \{.*?\n\}\n@media \(prefers-color-scheme: dark\) \{.*?\n\}\n", page, re.DOTALL)
    assert found, "the report's style sheet begins with its colours"
    return found.group() + (
        "text { font: 13px var(--font); fill: var(--ink); } .heading { font-weight: 600; } "
        ".paper { fill: var(--paper); }"
    )


def _panel(cases: Cases, panel: Panel) -> str:
    curves: list[Curve] = []
    for position, (name, points) in enumerate(lines(cases, panel.key)):
        curves.append((position, name, [(classes, value) for classes, value in points if value > 0]))
    with require("matplotlib", "compare").rc_context(STYLE):
        drawn = figure(HEIGHT)
        axes = drawn.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + 14) / WIDTH, 1 - (BOTTOM + 10) / HEIGHT))
        axes.set_xscale("log")
        axes.set_yscale("log")
        for position, _, points in reversed(curves):
            if points:
                marks = {**mark(position, 0.55), "markeredgewidth": 0}
                axes.plot(*zip(*points, strict=True), gid=f"line-{position}", **marks, **look(position))
        axes.set_xlabel("classes")
        set_ticks(axes.xaxis, [classes for classes, _ in cases], _count)
        low, high = (math.log(limit, panel.base) for limit in axes.get_ylim())
        powers = range(math.ceil(low), math.floor(high) + 1)
        set_ticks(axes.yaxis, [panel.base**power for power in powers], panel.write)
        return inline(drawn, panel.key, f"{panel.heading} over the number of classes")


def _count(classes: float) -> str:
    """Return a number of classes as an axis has room for it."""
    for scale, unit in ((1e6, "M"), (1e3, "k")):
        if classes >= scale:
            return f"{classes / scale:g}{unit}"
    return f"{classes:g}"
