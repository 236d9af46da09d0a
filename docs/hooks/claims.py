"""Verdicts on the claims, from docs/claims.json, which `make claims` writes: none is given by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "claims.json"
MARK = "<!-- claims: verdicts -->"
CHECKS = re.compile(r"<!-- claims:\s+((?:[a-z0-9-]+/[a-z0-9_]+\s+)+)-->")  # claim/metric, as many as wanted
Claims = list[dict[str, Any]]


def _number(value: float) -> str:
    return f"{value:.3g}"


def _check(one: dict[str, Any]) -> str:
    """Return a check's metric, threshold and what was measured."""
    measured = "not measured" if one["mean"] is None else _number(one["mean"])
    if one["interval"] is not None:
        measured += f" [{_number(one['interval'][0])}, {_number(one['interval'][1])}]"
    return f"`{one['metric']}` {one['comparison']} {_number(one['threshold'])}: {measured}"


def _link(claim: dict[str, Any]) -> str:
    return f"[{claim['claim']}](systems/claims/{claim['claim']}.md)"


def _row(claim: dict[str, Any]) -> str:
    held = [one for one in claim["checks"] if one["verdict"] == "holds"]
    rest = "; ".join(_check(one) for one in claim["checks"] if one["verdict"] != "holds")
    return f"| {_link(claim)} | {claim['verdict']} | {len(held)} of {len(claim['checks'])} | {rest} |"


def _readable(table: str) -> str:
    return table.replace("<=", "&le;").replace(">=", "&ge;").replace(" < ", " &lt; ").replace(" > ", " &gt; ")


def chosen(claims: Claims, wanted: str) -> str:
    """Return a row for each check that is named, as claim/metric."""
    checks = {f"{claim['claim']}/{one['metric']}": (claim, one) for claim in claims for one in claim["checks"]}
    lines = ["| Claim | What it says | Threshold: mean with its 95 % interval | Verdict |", "| --- | --- | --- | --- |"]
    for name in wanted.split():
        if name not in checks:
            raise ValueError(f"docs/claims.json has no {name}")
        claim, one = checks[name]
        lines.append(f"| {_link(claim)} | {one['statement']} | {_check(one)} | {one['verdict']} |")
    return _readable("\n".join(lines))


def table(claims: Claims) -> str:
    """Return where the claims were measured, and a row for each that was."""
    done = [claim for claim in claims if claim["runs"]]
    runs = [run for claim in done for run in claim["runs"]]
    dates = sorted(run["finished"][:10] for run in runs)
    machines = sorted({f"{run['environment']['processor']}, torch {run['environment']['torch']}" for run in runs})
    when = f"on {dates[0]}" if dates[0] == dates[-1] else f"from {dates[0]} to {dates[-1]}"
    minutes = sum(run["seconds"] for run in runs) / 60
    lines = [
        f"Measured {when} with {'; '.join(machines)}: {minutes:.0f} minutes in all.",
        "",
        "| Claim | Verdict | Checks that hold | The others: threshold and mean with its 95 % interval |",
        "| --- | --- | ---: | --- |",
        *map(_row, done),
    ]
    return _readable("\n".join(lines))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the verdicts."""
    if MARK not in markdown and not CHECKS.search(markdown):
        return markdown
    claims = json.loads(RESULTS.read_text(encoding="utf-8"))
    filled = CHECKS.sub(lambda mark: chosen(claims, mark[1]), markdown)
    return filled.replace(MARK, table(claims)) if MARK in filled else filled
