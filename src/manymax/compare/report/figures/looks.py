"""What all figures share: a candidate's colour, mark and dashes, and short numbers on axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from manymax.compare.report.svg import COLOURS, INK, PAPER, colour

# A mark and the size at which it looks as large as a circle of size 8.
MARKS = (("o", 8), ("s", 7.2), ("^", 8.8), ("D", 6.8), ("v", 8.8), ("P", 9.2), ("X", 9.2), ("p", 8.8), ("h", 8.6))
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its SVG, its heading, and a caption in plain text."""

    svg: str
    heading: str
    caption: str


def look(position: int) -> dict[str, Any]:
    """Return how a candidate's line is drawn: colour and dashes; the baseline is thick and neutral."""
    return {
        "color": colour(position),
        "linestyle": DASHES[0 if position == 0 else (position - 1) // COLOURS % len(DASHES)],
        "linewidth": 2.6 if position == 0 else 1.6,
        "zorder": 3 if position == 0 else 4,
    }


def mark(position: int, scale: float = 1.0) -> dict[str, Any]:
    """Return a candidate's mark, `scale` times its usual size."""
    shape, size = MARKS[position % len(MARKS)]
    return {"marker": shape, "markersize": scale * size}


def dot(position: int, *, failed: bool = False) -> dict[str, Any]:
    """Return how a candidate's point is drawn; a failed one is hollow."""
    return {
        **mark(position),
        "markerfacecolor": PAPER if failed else colour(position),
        "markeredgecolor": colour(position) if failed else PAPER,
        "markeredgewidth": 1.4 if failed else 0.6,
        "linestyle": "none",
        "zorder": 5,
    }


def rule(axes: Any, *, x: float | None = None, y: float | None = None) -> None:
    """Draw the baseline's value as a line through the axes."""
    if x is not None:
        axes.axvline(x, color=INK, linewidth=1, zorder=1.5)
    if y is not None:
        axes.axhline(y, color=INK, linewidth=1, zorder=1.5)


def set_ticks(axis: Any, values: Sequence[float], write: Callable[[float], str]) -> None:
    """Put an axis' ticks at the given values, written out, and none between."""
    axis.set_ticks(list(values), [write(value) for value in values])
    axis.set_ticks([], minor=True)


def tokens(number: float) -> str:
    """Return a count as an axis has room for it: 512, 4k."""
    return f"{number / 1024:g}k" if number >= 1024 and number % 1024 == 0 else f"{number:g}"
