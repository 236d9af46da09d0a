"""Verdicts and tables, from measurements made up for the purpose."""

import pytest
from benchmarks.goals import GOALS, Goal, judge
from benchmarks.measure import Measurement, of_case
from benchmarks.results import line, table, verdicts

from manymax.bench.contender import Case, Row

FASTER = Goal("work", "peer", 2.0)
SHARE = Goal("work", "limit", 0.8, "%", limit="{case}: {rate}, {share}")
CHEAP = Goal("work", "softmax", 1.15, at_most=True)


def made(reached, low=None, high=None, **known):
    return Measurement("forward/float32", known.pop("case", "a case"), reached, low, high, **known)


@pytest.mark.parametrize(
    ("goal", "values", "met", "reached"),
    [
        (FASTER, [2.0], "yes", "2.00x"),
        (FASTER, [3.1, 2.4, 25.2], "yes", "2.40x to 25x"),
        (FASTER, [3.1, 1.99], "no", "1.99x to 3.10x"),
        (SHARE, [0.8, 0.95], "yes", "80% to 95%"),
        (SHARE, [0.79, 0.95], "no", "79% to 95%"),
        (CHEAP, [0.9, 1.15], "yes", "1.15x to 0.90x"),
        (CHEAP, [0.9, 1.16], "no", "1.16x to 0.90x"),
        (FASTER, [], "not measured", ""),
    ],
)
def test_the_worst_case_decides(goal, values, met, reached):
    verdict = judge(goal, [made(value) for value in values])
    assert (verdict.met, verdict.reached) == (met, reached)
    assert bool(verdict.limit) == (met == "no")


@pytest.mark.parametrize(
    ("goal", "value", "low", "high", "met"),
    [
        (FASTER, 1.95, 1.8, 2.1, "within noise"),
        (FASTER, 1.95, 1.9, 1.99, "no"),
        (CHEAP, 1.2, 1.1, 1.3, "within noise"),
        (CHEAP, 1.2, 1.16, 1.3, "no"),
    ],
)
def test_an_interval_that_covers_the_target_leaves_it_open(goal, value, low, high, met):
    assert judge(goal, [made(value, low, high)]).met == met


def test_a_failed_case_is_not_met():
    verdict = judge(FASTER, [made(5.0), made(None, case="N 7", message="out of memory")])
    assert (verdict.met, verdict.reached, verdict.limit) == ("no", "N 7: failed", "out of memory")


def test_the_limit_names_the_worst_case_with_its_numbers():
    work = {"operations": 3e9, "seconds": 0.01, "limit": 5e11}
    verdict = judge(SHARE, [made(0.9), made(0.6, case="N 4096", **work)])
    assert verdict.limit == "N 4096: 300 GFLOP/s, 60%"
    reading = {"operations": 1.0, "bytes": 4e8, "limited_by": "bytes", "seconds": 0.01, "limit": 8e10}
    assert judge(SHARE, [made(0.5, case="N 3", **reading)]).limit == "N 3: 40 GB/s, 50%"


@pytest.mark.parametrize("key", GOALS)
def test_every_goal_says_something_when_it_is_missed(key):
    goal = GOALS[key]
    missed = goal.target * (2 if goal.at_most else 0.5)
    verdict = judge(goal, [made(missed, seconds=1e-4, peer_seconds=3e-5, operations=1e7, limit=1e12)])
    assert verdict.met == "no"
    assert "{" not in verdict.limit
    assert "a case" in verdict.limit


def rows():
    return Case([Row("sdpa", "softmax", "", seconds=0.3), Row("manymax", "relu", "cpu", seconds=0.1)], 0.02, 9)


def test_a_row_becomes_a_measurement():
    case = rows()
    case.rows[1].speed, case.rows[1].share = (2.5, 3.0, 4.0), 0.7
    one = of_case("maps/forward", "N 1", case, case.rows[1], operations=2e9, limit=4e10)
    assert (one.low, one.reached, one.high, one.noise) == (2.5, 3.0, 4.0, 0.02)
    assert (one.seconds, one.peer_seconds, one.backend, one.rate) == (0.1, 0.3, "cpu", 2e10)
    inverse = of_case("maps/forward", "N 1", case, case.rows[1], inverse=True, peer_seconds=7.0)
    assert (inverse.low, inverse.reached, inverse.high, inverse.peer_seconds) == (0.25, 1 / 3, 0.4, 7.0)


def test_a_row_that_failed_keeps_its_message():
    case = rows()
    case.rows[1].status, case.rows[1].message = "unsupported", "no kernel"
    one = of_case("maps/forward", "N 1", case, case.rows[1])
    assert (one.reached, one.message) == (None, "unsupported: no kernel")
    assert line(one) == "maps/forward: N 1: unsupported: no kernel"


def test_another_backend_is_named():
    one = Measurement("short", "N 64", 1.25, 1.0, 1.5, backend="sdpa", operations=4e9, seconds=0.1, limit=8e10)
    assert line(one) == "short: N 64: 1.25x (1.00x to 1.50x), 50% of the limit, served by sdpa"


def test_the_table_has_every_goal_and_the_limits_of_those_not_met():
    found = [Measurement(key, f"case of {key}", goal.target) for key, goal in GOALS.items()]
    found[0] = Measurement("forward/float32", "N 1024", 1.5, 1.4, 1.6, operations=1e9, seconds=0.01, limit=5e11)
    text = table(verdicts(found))
    assert len(text.splitlines()) == 1 + len(GOALS) + 3
    assert "attention forward, float32" in text
    assert "- attention forward, float32: at N 1024 it runs at 100 GFLOP/s, 20% of the product rate" in text
    assert "What limits" not in table(verdicts(found[1:]))
