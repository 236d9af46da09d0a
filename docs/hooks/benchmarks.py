"""Tables of what the kernels reach, from docs/benchmarks.json, which `make bench` writes: none is made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

RESULTS = Path(__file__).parents[1] / "benchmarks.json"
MARK = re.compile(r"<!-- benchmarks: ([a-z/0-9]+) -->")
Results = dict[str, Any]


def rows(header: list[str], body: list[list[str]], right: set[int]) -> str:
    """Return a Markdown table; `right` are columns of numbers."""
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return (
        "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *body))
        .replace("<=", "&le;")
        .replace(">=", "&ge;")
    )


def machine(results: Results) -> str:
    """Return where and when the numbers were measured."""
    it = results["machine"]
    quick = " This was a quick run, on small sizes." if it["scale"] == "quick" else ""
    return (
        f"Measured on {it['date']}: {it['processor']}, {it['cores']} cores, {it['threads']} threads, {it['kernels']}, "
        f"torch {it['torch']}, Python {it['python']}, load average {it['load']} before the run.{quick}"
    )


def limits(results: Results) -> str:
    """Return the machine's limits."""
    it = results["limits"]
    body = [
        ["copy, read and written", f"{it['copy'] / 1e9:.0f} GB/s", "`y.copy_(x)`, 128 MB"],
        ["read", f"{it['read'] / 1e9:.0f} GB/s", "`x.sum()`, 128 MB"],
        ["products, float32", f"{it['float32'] / 1e9:.0f} GFLOP/s", it["products"]],
        ["products, bfloat16", f"{it['bfloat16'] / 1e9:.0f} GFLOP/s", it["products"]],
    ]
    return rows(["Limit", "Rate", "Measured with"], body, {1})


def goals(results: Results) -> str:
    """Return the goals, and what limits those that are not met."""
    body = [[one["work"], one["against"], one["target"], one["reached"], one["met"]] for one in results["goals"]]
    table = rows(["Work", "Against", "Target", "Reached, worst to best", "Met"], body, {2, 3})
    short = [f"- {one['work']}: {one['limit']}." for one in results["goals"] if one["limit"]]
    return "\n".join([table, *(["", "What limits the rows that are not met:", "", *short] if short else [])])


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"{seconds * 1e6:.0f} us"
        if seconds < 1e-3
        else f"{seconds * 1e3:.1f} ms"
        if seconds < 1
        else f"{seconds:.2f} s"
    )


def _case(one: dict[str, Any], unit: str) -> list[str]:
    """Return the cells of a case."""
    if one["reached"] is None:
        return [one["case"], one["message"], "", "", "", ""]

    def show(value: float) -> str:
        return f"{value:.0%}" if unit == "%" else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"

    work = one["operations"] if one["limited_by"] == "operations" else one["bytes"]
    rate = share = ""
    if work and one["seconds"]:
        rate = f"{work / one['seconds'] / 1e9:.0f} {'GFLOP/s' if one['limited_by'] == 'operations' else 'GB/s'}"
        share = f"{work / one['seconds'] / one['limit']:.0%}" if one["limit"] else ""
    spread = "" if one["low"] is None or one["high"] is None else f"{show(one['low'])} to {show(one['high'])}"
    return [one["case"], show(one["reached"]), spread, _duration(one["seconds"]), rate, share]


def cases(results: Results, group: str) -> str:
    """Return every case of the goals whose names begin with `group`.

    Raises:
        PluginError: if there is no such goal.
    """
    parts = []
    for goal in results["goals"]:
        if goal["key"] != group and not goal["key"].startswith(group + "/"):
            continue
        found = [one for one in results["measurements"] if one["goal"] == goal["key"]]
        unit = "%" if "%" in goal["target"] else "x"
        body = [_case(one, unit) for one in found] or [["not measured", "", "", "", "", ""]]
        header = ["Case", goal["target"], "95 % interval", "Time", "Rate", "Of limit"]
        parts.append(f"**{goal['work']}**, against {goal['against']}\n\n{rows(header, body, {1, 2, 3, 4, 5})}")
    if not parts:
        raise PluginError(f"benchmarks: there is no goal {group!r} in {RESULTS.name}; run: make bench")
    return "\n\n".join(parts)


def errors(results: Results) -> str:
    """Return the largest errors of outputs and gradients beside those of plain PyTorch."""
    body = [
        [f"`{one['map']}`", one["dtype"], *(f"{one[name]:.1e}" for name in ("out", "plain_out", "grad", "plain_grad"))]
        for one in results["errors"]
    ]
    return rows(["Map", "Dtype", "Output", "plain PyTorch", "Gradients", "plain PyTorch"], body, {2, 3, 4, 5})


TABLES = {"machine": machine, "limits": limits, "goals": goals, "errors": errors}


def fill(text: str, results: Results) -> str:
    """Replace the marks in a page."""

    def replace(mark: re.Match[str]) -> str:
        return TABLES[mark[1]](results) if mark[1] in TABLES else cases(results, mark[1])

    return MARK.sub(replace, text)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in what a run has measured."""
    if not MARK.search(markdown):
        return markdown
    return fill(markdown, json.loads(RESULTS.read_text(encoding="utf-8")))
