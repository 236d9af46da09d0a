"""From measured numbers to verdicts. The rules are stated here, once, and know nothing of any claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal, TypeAlias

from manymax.claims.claim import Check, Claim

Verdict: TypeAlias = Literal["holds", "fails", "inconclusive", "not testable here", "not run"]

RULES = """\
A check on a mean holds if the 95 % interval of the mean over seeds (Student's t) lies on the right side of the
threshold, fails if it lies on the wrong side, and is inconclusive if it contains the threshold. A check on every seed
holds if every seed passes and fails if one does not. A check is also inconclusive if a seed is missing or measured NaN,
or if what it presupposes does not hold. A claim fails if one of its checks fails; else it is inconclusive if one is;
else it holds, for the checks that can be tested here."""

# The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Judgement:
    """A verdict on one check.

    Attributes:
        check: what was asked.
        verdict: the answer.
        reason: why it is not "holds" or "fails"; "" otherwise.
        values: the measured numbers, one a seed.
        mean: their mean; NaN without any.
        low: lower end of the 95 % interval of the mean; equal to the mean where one seed is all there is.
        high: upper end.
    """

    check: Check
    verdict: Verdict
    reason: str = ""
    values: tuple[float, ...] = ()
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def decisive(self) -> float:
        """Return the number that decides: the mean, or the worst seed where every seed has to pass."""
        if self.check.over == "mean" or not self.values:
            return self.mean
        return max(self.values) if self.check.comparison in {"<", "<="} else min(self.values)


@dataclass(frozen=True)
class ClaimJudgement:
    """A verdict on a claim, with those on its checks and on what these presuppose."""

    claim: Claim
    verdict: Verdict
    reason: str
    checks: tuple[Judgement, ...]
    presupposed: tuple[Judgement, ...]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean with the ends of its 95 % interval by Student's t; infinite values leave no interval."""
    if not values:
        return math.nan, math.nan, math.nan
    mean = fmean(values)
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return mean, mean, mean
    quantile = _T[len(values) - 2] if len(values) - 1 <= len(_T) else 1.96
    half = quantile * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def judge_values(check: Check, values: Sequence[float]) -> tuple[Verdict, str]:
    """Judge a check by one number a seed, all seeds there."""
    if any(math.isnan(value) for value in values):
        return "inconclusive", "a seed measured NaN"
    passed = [check.passes(value) for value in values]
    if check.over == "every":
        return ("holds" if all(passed) else "fails"), ""
    if any(math.isinf(value) for value in values):  # no mean: all seeds have to agree
        if all(passed) or not any(passed):
            return ("holds" if all(passed) else "fails"), ""
        return "inconclusive", "seeds disagree, one measured an infinite value"
    if len(values) < 2:
        return "inconclusive", "one seed leaves no interval"
    _, low, high = interval(values)
    sides = {check.passes(low), check.passes(high)}
    if len(sides) == 2:
        return "inconclusive", "the interval over seeds contains the threshold"
    return ("holds" if sides.pop() else "fails"), ""


def judge_check(check: Check, seeds: Sequence[int], results: Mapping[int, Mapping[str, Any]]) -> Judgement:
    """Judge a check by the results of a claim's seeds.

    Args:
        check: what is asked.
        seeds: all that belong to the claim.
        results: the line of each seed that was run: "status", "message", "metrics", "untestable".
    """
    lines = [results[seed] for seed in seeds if seed in results]
    reasons = [line["untestable"][check.metric] for line in lines if check.metric in line.get("untestable", {})]
    reasons += [line["message"] for line in lines if line["status"] == "untestable"]
    if reasons:
        return Judgement(check, "not testable here", reasons[0])
    values = tuple(float(line["metrics"][check.metric]) for line in lines if check.metric in line.get("metrics", {}))
    if not lines:
        return Judgement(check, "not run")
    if len(values) < len(seeds):
        crashed = [f"seed {line['seed']} crashed: {line['message']}" for line in lines if line["status"] == "crashed"]
        missing = f"{len(values)} of {len(seeds)} seeds measured it"
        verdict: Verdict = "inconclusive"
        reason = "; ".join([missing, *crashed[:1]])
    else:
        verdict, reason = judge_values(check, values)
    if check.given is not None:
        given = judge_check(check.given, seeds, results)
        if given.verdict != "holds":
            verdict, reason = "inconclusive", f"presupposes {check.given}, which is: {given.verdict}"
    return Judgement(check, verdict, reason, values, *interval(values))


def judge_claim(claim: Claim, results: Mapping[int, Mapping[str, Any]]) -> ClaimJudgement:
    """Judge all checks of a claim, then the claim, by `RULES`."""
    checks = tuple(judge_check(check, claim.seeds, results) for check in claim.checks)
    verdicts = [judgement.verdict for judgement in checks]
    order: tuple[Verdict, ...] = ("not run", "fails", "inconclusive", "holds", "not testable here")
    verdict = next(one for one in order if one in verdicts)
    decisive = [judgement for judgement in checks if judgement.verdict == verdict]
    reason = "" if verdict in ("holds", "not run") else _why(decisive)
    untested = verdicts.count("not testable here")
    if verdict == "holds" and untested:
        reason = f"{untested} of {len(verdicts)} checks cannot be tested here"
    given = dict.fromkeys(check.given for check in claim.checks if check.given is not None)
    presupposed = tuple(judge_check(check, claim.seeds, results) for check in given)
    return ClaimJudgement(claim, verdict, reason, checks, presupposed)


def _why(decisive: Sequence[Judgement]) -> str:
    """Return what decided, the first two checks in full."""
    named = [f"{one.check} ({one.reason or f'measured {one.decisive:.3g}'})" for one in decisive[:2]]
    return "; ".join(named + [f"and {len(decisive) - 2} more"] * (len(decisive) > 2))
