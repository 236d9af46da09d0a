import math

import pytest
from scipy import stats
from toy_claims import toy

from manymax.claims.claim import Check
from manymax.claims.verdict import interval, judge_check, judge_claim, judge_values


def check(comparison=">", threshold=1.0, over="mean", given=None, metric="gain"):
    return Check(metric, comparison, threshold, "", over=over, given=given)


def line(seed, status="ok", message="", untestable=(), **metrics):
    return {
        "seed": seed,
        "status": status,
        "message": message,
        "metrics": metrics,
        "untestable": dict(untestable),
    }


def lines(*values, metric="gain"):
    return {seed: line(seed, **{metric: value}) for seed, value in enumerate(values)}


@pytest.mark.parametrize(
    ("comparison", "below", "at", "above"),
    [("<", True, False, False), ("<=", True, True, False), (">", False, False, True), (">=", False, True, True)],
)
def test_comparisons(comparison, below, at, above):
    one = check(comparison, 2.0)
    assert [one.passes(value) for value in (1.9, 2.0, 2.1)] == [below, at, above]
    assert not one.passes(math.nan)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 16])
def test_interval_is_students(count):
    values = [math.sin(7 * k) for k in range(count)]
    expected = stats.t.interval(0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values))
    assert interval(values)[1:] == pytest.approx(expected, abs=5e-4)


def test_interval_of_many_one_and_no_values():
    values = [math.sin(k) for k in range(40)]
    mean, low, high = interval(values)
    assert high - mean == pytest.approx(1.96 * stats.sem(values))
    assert mean - low == pytest.approx(high - mean)
    assert interval([3.0]) == (3.0, 3.0, 3.0)
    assert all(map(math.isnan, interval([])))


@pytest.mark.parametrize(
    ("comparison", "values", "verdict"),
    [
        (">", [1.4, 1.5, 1.6], "holds"),
        (">", [0.4, 0.5, 0.6], "fails"),
        (">", [0.5, 1.6, 1.5], "inconclusive"),  # the mean passes, the interval contains 1
        ("<", [0.4, 0.5, 0.6], "holds"),
        ("<", [1.4, 1.5, 1.6], "fails"),
        ("<", [0.5, 1.6, 0.7], "inconclusive"),
        ("<=", [1.0, 1.0, 1.0], "holds"),
        ("<", [1.0, 1.0, 1.0], "fails"),
        (">=", [1.0, 1.0, 1.0], "holds"),
        (">", [1.0, 1.0, 1.0], "fails"),
    ],
)
def test_a_mean_is_judged_by_its_interval(comparison, values, verdict):
    assert judge_values(check(comparison), values)[0] == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([1.1, 1.2, 1.1], "holds"), ([9.0, 9.0, 0.9], "fails"), ([0.5, 0.5, 0.5], "fails"), ([1.1, 90.0, 9.0], "holds")],
)
def test_every_seed_counts(values, verdict):
    assert judge_values(check(over="every"), values)[0] == verdict


def test_infinite_values_have_to_agree():
    assert judge_values(check(), [math.inf, 2.0, 3.0])[0] == "holds"
    assert judge_values(check("<"), [math.inf, 2.0, 3.0])[0] == "fails"
    assert judge_values(check("<"), [math.inf, 0.5, 0.5]) == (
        "inconclusive",
        "seeds disagree, one measured an infinite value",
    )


@pytest.mark.parametrize("over", ["mean", "every"])
def test_nan_is_inconclusive(over):
    assert judge_values(check(over=over), [2.0, math.nan, 2.0]) == ("inconclusive", "a seed measured NaN")


def test_one_seed_leaves_no_interval():
    assert judge_values(check(), [5.0]) == ("inconclusive", "one seed leaves no interval")
    assert judge_values(check(over="every"), [5.0]) == ("holds", "")


def test_numbers_of_the_judgement():
    judgement = judge_check(check(), (0, 1, 2), lines(1.4, 1.5, 1.6))
    assert (judgement.verdict, judgement.values) == ("holds", (1.4, 1.5, 1.6))
    assert judgement.mean == pytest.approx(1.5)
    assert judgement.high - judgement.mean == pytest.approx(4.303 * 0.1 / 3**0.5)


def test_written_infinities_are_read_back():
    assert judge_check(check(), (0, 1), lines("inf", "inf")).verdict == "holds"
    assert judge_check(check(), (0, 1), lines("nan", 2.0)).verdict == "inconclusive"


def test_a_missing_seed_is_inconclusive_however_clear_the_others_are():
    judgement = judge_check(check(), (0, 1, 2), lines(5.0, 5.1))
    assert (judgement.verdict, judgement.reason) == ("inconclusive", "2 of 3 seeds measured it")


def test_a_crashed_seed_is_named():
    results = lines(5.0, 5.1) | {2: line(2, "crashed", "ValueError: no")}
    judgement = judge_check(check(), (0, 1, 2), results)
    assert judgement.verdict == "inconclusive"
    assert judgement.reason == "2 of 3 seeds measured it; seed 2 crashed: ValueError: no"


def test_results_of_other_seeds_do_not_count():
    assert judge_check(check(), (0, 1), lines(5.0, 5.1, -90.0)).verdict == "holds"


def test_nothing_was_run():
    judgement = judge_check(check(), (0, 1), {})
    assert (judgement.verdict, judgement.reason) == ("not run", "")
    assert math.isnan(judgement.mean)


def test_what_cannot_be_tested_here_says_why():
    single = {seed: line(seed, untestable={"gain": "no such kernel"}) for seed in (0, 1)}
    assert judge_check(check(), (0, 1), single).verdict == "not testable here"
    assert judge_check(check(), (0, 1), single).reason == "no such kernel"
    whole = {seed: line(seed, "untestable", "sklearn is not installed") for seed in (0, 1)}
    assert judge_check(check(), (0, 1), whole).reason == "sklearn is not installed"


@pytest.mark.parametrize(
    ("fitted", "verdict"), [([1.0, 1.0], "holds"), ([0.2, 0.3], "inconclusive"), ([0.4, 0.6], "inconclusive")]
)
@pytest.mark.parametrize("gain", [5.0, -5.0])
def test_a_precondition_that_does_not_hold_makes_it_inconclusive(fitted, verdict, gain):
    one = check(given=check(">", 0.5, metric="fitted"))
    results = {seed: line(seed, gain=gain + seed / 10, fitted=value) for seed, value in enumerate(fitted)}
    judgement = judge_check(one, (0, 1), results)
    assert judgement.verdict == (verdict if gain > 0 or verdict == "inconclusive" else "fails")
    assert (judgement.reason != "") == (verdict == "inconclusive")
    if verdict == "inconclusive":
        assert judgement.reason.startswith("presupposes fitted > 0.5")


CHECKS = (check(metric="a"), check(metric="b"), check(metric="c"))
VALUES = {"holds": (2.0, 2.1), "fails": (0.1, 0.2), "inconclusive": (0.5, 1.6)}


def judge(*wanted):
    """Judge a claim of three checks that come out as wanted."""
    results = {}
    for seed in (0, 1):
        metrics = {name: VALUES[one][seed] for name, one in zip("abc", wanted, strict=True) if one in VALUES}
        gone = {name: "no kernel" for name, one in zip("abc", wanted, strict=True) if one not in VALUES}
        results[seed] = line(seed, untestable=gone, **metrics)
    return judge_claim(toy(checks=CHECKS, seeds=(0, 1)), results)


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        (("holds", "holds", "holds"), "holds"),
        (("holds", "fails", "holds"), "fails"),
        (("inconclusive", "fails", "untestable"), "fails"),
        (("holds", "inconclusive", "holds"), "inconclusive"),
        (("holds", "inconclusive", "untestable"), "inconclusive"),
        (("untestable", "holds", "holds"), "holds"),
        (("untestable", "untestable", "untestable"), "not testable here"),
    ],
)
def test_a_claims_verdict_follows_from_its_checks(checks, verdict):
    judgement = judge(*checks)
    assert judgement.verdict == verdict
    assert [one.verdict for one in judgement.checks] == [
        "not testable here" if one == "untestable" else one for one in checks
    ]


def test_the_reason_names_the_checks_that_decide():
    assert judge("fails", "fails", "fails").reason == "a > 1 (measured 0.15); b > 1 (measured 0.15); and 1 more"
    assert judge("holds", "fails", "fails").reason == "b > 1 (measured 0.15); c > 1 (measured 0.15)"
    assert judge("holds", "inconclusive", "holds").reason == "b > 1 (the interval over seeds contains the threshold)"
    assert judge("untestable", "holds", "holds").reason == "1 of 3 checks cannot be tested here"
    assert judge("holds", "holds", "holds").reason == ""


@pytest.mark.parametrize(("comparison", "worst"), [("<", 3.0), ("<=", 3.0), (">", 1.0), (">=", 1.0)])
def test_the_worst_seed_decides_where_every_seed_has_to_pass(comparison, worst):
    one = check(comparison, over="every")
    assert judge_check(one, (0, 1, 2), lines(2.0, 1.0, 3.0)).decisive == worst
    assert judge_check(check(comparison), (0, 1, 2), lines(2.0, 1.0, 3.0)).decisive == 2.0
    assert judge_claim(toy(checks=(check(over="every"),)), lines(0.5, 9.0, 0.7)).reason == "gain > 1 (measured 0.5)"


def test_a_claim_that_was_not_run():
    assert judge_claim(toy(checks=CHECKS), {}).verdict == "not run"
