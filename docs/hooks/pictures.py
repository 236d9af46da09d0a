"""Pictures of the kernels: the tiling, and the measured roofline from docs/benchmarks.json.

They are drawn into the page, so that they take its colours, light or dark.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks.json"
MARK = re.compile(r"<!-- picture: ([a-z]+) -->")
# As in the kernels: a block of queries, a tile of keys, and what the registers hold of it.
ROWS, COLUMNS, PANEL, STRIP, LANES = 96, 128, 64, 6, 16
TOKENS = 768  # whole blocks and whole tiles


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a rectangle of a class of manymax.css."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def label(x: float, y: float, text: str, kind: str = "") -> str:
    """Return a text; classes place it: start, middle, end."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return a picture as wide as the page allows; without blank lines, which would end it in Markdown."""
    head = f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
    return "\n".join([f'<div class="picture-frame">{head}', *parts, "</svg></div>"])


def tiles(tokens: int = TOKENS) -> Iterator[tuple[int, int, int, str]]:
    """Yield the tiles that a causal forward pass visits: first query, first key, keys, and how it sees them."""
    for i in range(0, tokens, ROWS):
        end = -(-min(i + ROWS, tokens) // PANEL) * PANEL
        for j in range(0, end, COLUMNS):
            columns = min(end - j, COLUMNS)
            yield i, j, columns, "whole" if j + columns - 1 <= i else "part"


def tiling() -> str:
    """Return the tiles of causal attention, and what the registers hold of one."""
    x, y, side = 96.0, 92.0, 300.0
    unit = side / TOKENS
    parts = [label(x + side / 2, 26, "keys, packed once: panels of 64", "middle"), label(40, 80, "queries", "start")]
    parts += [rectangle(x + j * unit, 40, PANEL * unit, 26, "packed") for j in range(0, TOKENS, PANEL)]
    parts += [rectangle(52, y + i * unit, 26, ROWS * unit, "packed") for i in range(0, TOKENS, ROWS)]
    parts += [rectangle(x, y, side, side, "empty")]
    parts += [
        rectangle(x + j * unit, y + i * unit, columns * unit, ROWS * unit, kind) for i, j, columns, kind in tiles()
    ]
    at = (x + COLUMNS * unit, y + 5 * ROWS * unit)
    parts += [rectangle(*at, COLUMNS * unit, ROWS * unit, "chosen")]
    parts += _legend(x, y + side + 22)
    parts += _tile(at[0] + COLUMNS * unit, at[1])
    parts += _registers()
    return svg(760, 460, "Tiles of causal attention and the part of a tile that the registers hold", parts)


def _legend(x: float, y: float) -> list[str]:
    kinds = (("whole", "every pair counts"), ("part", "looked at pair by pair"), ("empty", "left out"))
    parts, place = [], x - 44
    for kind, text in kinds:
        parts += [rectangle(place, y - 10, 14, 12, kind), label(place + 20, y, text, "start")]
        place += 36 + 7.2 * len(text)
    return parts


def _tile(from_x: float, from_y: float) -> list[str]:
    """Return one tile, enlarged: 16 strips of 6 queries, 2 panels of 64 keys."""
    x, y, width, height = 500.0, 92.0, 128.0, 128.0
    parts = [segment(from_x, from_y, x, y, "thin"), segment(from_x, from_y + 37.5, x, y + height, "thin")]
    parts += [label(x, y - 30, "a tile: 96 queries, 128 keys", "start")]
    parts += [label(x, y - 12, "48 KB of scores, in the second-level cache", "start")]
    strip = height / (ROWS // STRIP)
    parts += [rectangle(x, y, width, height, "whole")]
    parts += [segment(x, y + i * strip, x + width, y + i * strip, "thin") for i in range(1, ROWS // STRIP)]
    parts += [segment(x + width / 2, y, x + width / 2, y + height, "thin")]
    parts += [rectangle(x + width / 2, y + 4 * strip, width / 2, strip, "chosen")]
    parts += [
        segment(x + width / 2, y + 5 * strip, 500, 272, "thin"),
        segment(x + width, y + 5 * strip, 684, 272, "thin"),
    ]
    return parts


def _registers() -> list[str]:
    """Return the micro-kernel's registers: 6 x 4 sums, 4 of keys, 1 of queries."""
    x, y, width, height = 500.0, 296.0, 46.0, 17.0
    parts = [rectangle(x + v * width, y - 24, width, height, "packed") for v in range(PANEL // LANES)]
    parts += [label(x + 4 * width + 8, y - 11, "4 of keys", "start")]
    parts += [
        rectangle(x + v * width, y + i * height, width, height, "whole")
        for v in range(PANEL // LANES)
        for i in range(STRIP)
    ]
    parts += [rectangle(x - 30, y + 2 * height, 20, height, "packed")]
    parts += [label(x - 36, y + 2 * height + 13, "a query", "end")]
    parts += [label(x, y + 6 * height + 20, "6 x 4 registers of 16 sums each: a strip", "start")]
    parts += [label(x, y + 6 * height + 38, "of 6 queries against a panel of 64 keys", "start")]
    return parts


class Axes:
    """Logarithmic axes: operations a byte to the right, operations a second upwards."""

    def __init__(self, low_x: float, high_x: float, low_y: float, high_y: float) -> None:
        self.x, self.y = (math.log10(low_x), math.log10(high_x)), (math.log10(low_y), math.log10(high_y))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the picture."""
        across = (math.log10(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (math.log10(y) - self.y[0]) / (self.y[1] - self.y[0])
        return 70 + across * 650, 370 - up * 330


def points(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cases beside PyTorch that the picture shows: whole rows, head_dim 64."""
    shown = []
    for one in measurements:
        group, _, rest = one["goal"].partition("/")
        plain = "causal" not in one["case"] and "D 64" in one["case"] and not rest.endswith("share")
        if group in {"forward", "training", "decode"} and plain and one["seconds"] and one["peer_seconds"]:
            shown.append({**one, "group": group, "dtype": "bfloat16" if "bfloat16" in one["case"] else "float32"})
    return shown


def roofline(results: dict[str, Any]) -> str:
    """Return what was reached beside what memory and the product loop allow."""
    shown, limits = points(results["measurements"]), results["limits"]
    axes = Axes(0.2, 2e4, 0.5e9, 2e12)
    parts = _frame(axes)
    for dtype in ("float32", "bfloat16"):
        peak = limits[dtype]
        knee = peak / limits["read"]
        parts += [segment(*axes.at(knee, peak), *axes.at(2e4, peak), f"limit {dtype}")]
        x, y = axes.at(22, peak)
        parts += [label(x, y - 7, f"{dtype} products: {peak / 1e9:.0f} GFLOP/s", "start")]
    highest = max(limits["float32"], limits["bfloat16"])
    parts += [segment(*axes.at(0.2, 0.2 * limits["read"]), *axes.at(highest / limits["read"], highest), "limit")]
    x, y = axes.at(0.6 * highest / limits["read"], 0.75 * highest)
    parts += [label(x, y, f"reading memory: {limits['read'] / 1e9:.0f} GB/s", "end")]
    for one in shown:
        place = one["operations"] / one["bytes"]
        ours, theirs = (axes.at(place, one["operations"] / one[name]) for name in ("seconds", "peer_seconds"))
        parts += [segment(*ours, *theirs, "thin"), _dot(*theirs, f"theirs {one['dtype']}"), _dot(*ours, one["dtype"])]
    return svg(760, 460, "Measured roofline of attention", [*parts, *_key()])


def _dot(x: float, y: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def _frame(axes: Axes) -> list[str]:
    parts = []
    for power in range(9, 13):
        x, y = axes.at(0.2, 10.0**power)
        parts += [segment(x, y, 720, y, "grid"), label(x - 8, y + 4, f"{10 ** (power - 9)}", "end")]
    for power in range(5):
        x, y = axes.at(10.0**power, 0.5e9)
        parts += [segment(x, y, x, 40, "grid"), label(x, y + 20, f"{10**power:,}".replace(",", " "), "middle")]
    parts += [label(70, 24, "GFLOP/s", "start"), label(720, 412, "operations for each byte that must be moved", "end")]
    parts += [
        label(axes.at(0.9, 1e9)[0], 362, "decode", "middle"),
        label(axes.at(1000, 1e9)[0], 362, "many queries", "middle"),
    ]
    return parts


def _key() -> list[str]:
    parts, x = [], 76.0
    entries = (("float32", "manymax, float32"), ("bfloat16", "bfloat16"), ("theirs float32", "PyTorch, float32"))
    for kind, text in (*entries, ("theirs bfloat16", "bfloat16")):
        parts += [_dot(x, 442, kind), label(x + 12, 447, text, "start")]
        x += 46 + 7.4 * len(text)
    return parts


def draw(name: str) -> str:
    """Return a picture by its name."""
    if name == "tiling":
        return tiling()
    return roofline(json.loads(RESULTS.read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Draw the pictures of a page."""
    return MARK.sub(lambda mark: draw(mark[1]), markdown)
