"""Stability of training: one row a candidate, one point a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manymax._extras import require
from manymax.compare.report.figures.curves import draw_gradients
from manymax.compare.report.figures.labels import shorten, width
from manymax.compare.report.figures.looks import Figure, dot
from manymax.compare.report.runs import Runs
from manymax.compare.report.summary import metric
from manymax.compare.report.svg import INK, MUTED, STYLE, WIDTH, figure, inline
from manymax.compare.report.values import Row
from manymax.compare.report.wording import DASH

Dots = Mapping[str, Sequence[tuple[float, bool]]]  # name -> (value, ended well) of each seed

SHARE = "first_token_share"
PANELS = (
    ("largest_score", "Largest score", "In absolute value, before the map. Scores that keep growing will overflow."),
    ("grad_norm_max", "Largest gradient norm", "Of the worst step of training."),
    ("entropy", "Entropy of the weights", "In nats, mean over rows: low is sharp, high is even."),
    (SHARE, "Weight on the first token", "As a share of all weight: high means an attention sink."),
)
WIDE_RANGE = 30  # largest over smallest value from which the axis is logarithmic
BOTTOM, LINE = 24, 20


def draw(runs: Runs, rows: Sequence[Row]) -> list[Figure]:
    """Return a panel for each quantity that was measured, and the gradient norm over steps."""
    figures = []
    for key, heading, caption in PANELS:
        dots = {row.name: _dots(runs, row.name, key) for row in rows}
        if any(dots.values()):
            hollow = any(not well for several in dots.values() for _, well in several)
            seeds = "One point a seed; hollow: that seed failed." if hollow else "One point a seed."
            svg = _panel(rows, dots, key, heading)
            figures.append(Figure(svg, heading, f"{caption} {seeds}"))
    return figures + draw_gradients(runs, rows)


def _dots(runs: Runs, name: str, key: str) -> list[tuple[float, bool]]:
    found = [(metric(line, key), line["status"] == "ok") for line in runs.train(name).values()]
    return [(value, well) for value, well in found if value is not None]


def _panel(rows: Sequence[Row], dots: Dots, key: str, heading: str) -> str:
    everything = [value for several in dots.values() for value, _ in several]
    height, left = BOTTOM + LINE * len(rows) + 8, width([row.name for row in rows]) + 10
    with require("matplotlib", "compare").rc_context(STYLE):
        drawn = figure(height)
        axes = drawn.add_axes((left / WIDTH, BOTTOM / height, 1 - (left + 12) / WIDTH, LINE * len(rows) / height))
        if min(everything) > 0 and max(everything) / min(everything) > WIDE_RANGE:
            axes.set_xscale("log")
        else:
            axes.locator_params(axis="x", nbins=5)
        for place, row in enumerate(rows):
            for seed, (value, well) in enumerate(dots[row.name]):
                axes.plot(value, place, gid=f"dot-{row.position}-{seed}", **dot(row.position, failed=not well))
            if not dots[row.name]:
                beside = axes.get_yaxis_transform()  # across in parts of the axes
                axes.text(0.01, place, f"{DASH} not measured", transform=beside, va="center", color=MUTED)
        axes.set_yticks(range(len(rows)), [shorten(row.name) for row in rows], color=INK)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %" if key == SHARE else f"{value:g}")
        name, names = f"stability-{key.replace('_', '-')}", ", ".join(row.name for row in rows)
        return inline(drawn, name, f"{heading} for {names}")
