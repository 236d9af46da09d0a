"""The report: what was claimed, what was measured, and the verdict; for the terminal, as a page, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manymax.claims.claim import Claim
from manymax.claims.runner import Results, latest
from manymax.claims.verdict import RULES, ClaimJudgement, Judgement, interval, judge_claim

PAGE = "claims.md"
DATA = "claims.json"


def collect(claims: Sequence[Claim], folder: Path) -> list[tuple[ClaimJudgement, Results]]:
    """Return a verdict on each claim with the results that it rests on."""
    found = ((claim, latest(claim, folder)) for claim in claims)
    return [(judge_claim(claim, results), results) for claim, results in found]


def number(value: float) -> str:
    """Return a number in three significant digits."""
    return f"{value:.3g}" if math.isfinite(value) else str(value)


def measured(judgement: Judgement) -> str:
    """Return the mean and the ends of its interval, or the worst seed where every seed has to pass."""
    if not judgement.values:
        return "-"
    if judgement.check.over == "every" and len(judgement.values) > 1:
        return f"{number(judgement.decisive)} (worst of {len(judgement.values)})"
    if judgement.low == judgement.high:
        return number(judgement.decisive)
    return f"{number(judgement.mean)} [{number(judgement.low)}, {number(judgement.high)}]"


def table(collected: Sequence[tuple[ClaimJudgement, Results]]) -> str:
    """Return the report for a terminal: a block a claim, a line a check."""
    blocks = []
    for judgement, _ in collected:
        marked = [(one, "") for one in judgement.checks] + [(one, " (presupposed)") for one in judgement.presupposed]
        rows = [(str(one.check), measured(one), one.verdict + mark) for one, mark in marked]
        rows = [("claimed", "measured [95 %]", "verdict"), *rows]
        wide = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{judgement.claim.name}: {judgement.verdict.upper()}   {judgement.claim.source}"]
        lines += [f"  {claimed:<{wide[0]}}  {found:<{wide[1]}}  {verdict}" for claimed, found, verdict in rows]
        lines += [f"  {judgement.reason}"] if judgement.reason else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def page(collected: Sequence[tuple[ClaimJudgement, Results]]) -> str:
    """Return the report as a markdown page."""
    rows = []
    for one, _ in collected:
        name, source = one.claim.name, one.claim.source
        rows.append(f"| [{name}](#{name}) | {source.title} ({source.year}) | {one.verdict} |")
    head = ["# Claims", "", RULES, "", "| claim | paper | verdict |", "| --- | --- | --- |", *rows]
    return "\n".join([*head, *(line for one, results in collected for line in _section(one, results)), ""])


def _section(judgement: ClaimJudgement, results: Results) -> list[str]:
    claim = judgement.claim
    verdict = f"**Verdict: {judgement.verdict}**" + (f" - {judgement.reason}" if judgement.reason else "")
    lines = ["", f"## {claim.name}", "", f"{claim.source}.", "", f"**Claim.** {claim.statement}", ""]
    lines += [f"**Setting.** {claim.setting}", "", f"**Differences to the paper.** {claim.differences}", ""]
    lines += [f"{verdict}", "", "| check | claimed | measured | verdict |", "| --- | --- | --- | --- |"]
    lines += [_row(one) for one in judgement.checks]
    lines += [_row(one, "presupposed: ") for one in judgement.presupposed]
    also = [f"| {what} | `{name}` | {_spread(name, results)} | |" for name, what in claim.also.items()]
    return [*lines, *also, "", _origin(claim, results)]


def _row(judgement: Judgement, before: str = "") -> str:
    verdict = judgement.verdict + (f" ({judgement.reason})" if judgement.reason else "")
    return f"| {before}{judgement.check.statement} | `{judgement.check}` | {measured(judgement)} | {verdict} |"


def _spread(name: str, results: Results) -> str:
    values = [float(line["metrics"][name]) for line in results.values() if name in line["metrics"]]
    mean, low, high = interval(values)
    if not values:
        return "-"
    return number(mean) if low == high else f"{number(mean)} [{number(low)}, {number(high)}]"


def _origin(claim: Claim, results: Results) -> str:
    """Say where and when the numbers were measured."""
    if not results:
        return f"Not run yet: `manymax claims run {claim.name}` takes about {claim.minutes:g} minutes on two cores."
    lines = list(results.values())
    machine = lines[-1]["environment"]
    minutes = sum(line["seconds"] for line in lines) / 60
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] != 1)
    commits = ", ".join(sorted({line["environment"]["commit"] for line in lines} - {""}))
    return (
        f"Seeds {', '.join(map(str, sorted(results)))} in {minutes:.1f} minutes on {machine['processor']} with "
        f"{threads}, torch {machine['torch']}, Python {machine['python']}"
        + (f", commit {commits}" if commits else "")
        + f", {max(line['finished'] for line in lines)[:10]}."
    )


def data(collected: Sequence[tuple[ClaimJudgement, Results]]) -> list[dict[str, Any]]:
    """Return the report as plain values for JSON."""
    return [
        {
            "claim": one.claim.name,
            "source": str(one.claim.source),
            "statement": one.claim.statement,
            "verdict": one.verdict,
            "reason": one.reason,
            "checks": [
                {
                    "statement": each.check.statement,
                    "metric": each.check.metric,
                    "comparison": each.check.comparison,
                    "threshold": each.check.threshold,
                    "verdict": each.verdict,
                    "reason": each.reason,
                    "values": list(each.values),
                    "mean": each.mean,
                    "interval": [each.low, each.high],
                }
                for each in one.checks
            ],
            "runs": [results[seed] for seed in sorted(results)],
        }
        for one, results in collected
    ]
