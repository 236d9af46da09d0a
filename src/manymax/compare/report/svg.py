"""A matplotlib figure as inline SVG that takes its colours and its font from the page."""

from __future__ import annotations

import html
import io
import re
from typing import Any

from manymax._extras import require

# matplotlib draws with these stand-ins; the page's style sheet says what they look like in light and dark.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
COLOURS = 8  # distinguishable by colour-blind readers; later candidates repeat the colours with other marks and dashes
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}
_SERIES = {f"#0a0a{number:02x}": f"c{number}" for number in range(1, COLOURS + 1)}
WIDTH = 360  # of a figure's coordinate system: on a narrow phone a size is about as many pixels
_POINTS_PER_INCH = 72

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib, for measuring; the page's own font takes its place
    "text.parse_math": False,  # a candidate may be called $x$
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.6,
}


def colour(position: int) -> str:
    """Return the stand-in for a candidate's colour: ink for the baseline, then the series' colours in turn."""
    return INK if position == 0 else f"#0a0a{(position - 1) % COLOURS + 1:02x}"


def variable(position: int) -> str:
    """Return the CSS variable of a candidate's colour."""
    return "--ink" if position == 0 else f"--c{(position - 1) % COLOURS + 1}"


def figure(height: float) -> Any:
    """Return an empty figure of the common width; height in the same units, which are pixels to matplotlib too."""
    size = (WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH)
    drawn = require("matplotlib.figure", "compare").Figure(figsize=size, dpi=_POINTS_PER_INCH, layout="none")
    require("matplotlib.backends.backend_agg", "compare").FigureCanvasAgg(drawn)  # it can measure text
    return drawn


def inline(drawn: Any, name: str, label: str) -> str:
    """Return a figure as an <svg> element.

    Args:
        drawn: the matplotlib figure.
        name: prefix of all ids, so that several figures share a page.
        label: what the figure shows, for those who do not see it.
    """
    buffer = io.StringIO()
    with require("matplotlib", "compare").rc_context({**STYLE, "svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for unwanted in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r' xmlns(:xlink)?="[^"]*"'):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    for stand_in, css in (_VARIABLES | _SERIES).items():
        text = text.replace(stand_in, f"var(--{css})")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box, "matplotlib writes a viewBox"
    opening = f'<svg role="img" aria-label="{html.escape(label)}" {box.group()}>'
    return opening + text[text.index(">") + 1 :].strip()
