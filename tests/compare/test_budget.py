import pytest

from manymax.compare import budget
from manymax.compare.budget import Cost
from manymax.compare.clockwork import Clockwork
from manymax.compare.jobs import Job, calibrations, line, measurements, trainings
from manymax.compare.progress import clock
from manymax.compare.reading import from_mapping
from manymax.compare.state import State

COSTS = {"softmax": Cost(0.01, 1.0), "relu": Cost(0.03, 2.0)}


def plan(**keys):
    return from_mapping({"candidates": ["relu"], "seeds": 3, "budget": 100, **keys})


@pytest.mark.parametrize("workers", [1, 2])
def test_all_trainings_together_fit_into_their_share_of_the_budget(workers):
    steps = budget.steps(plan(), COSTS, workers)
    total = 3 * sum(cost.seconds(steps) for cost in COSTS.values()) * budget.CAUTION / workers
    one_more = 3 * 0.04 * budget.CAUTION / workers
    assert total <= budget.TRAINING * 100 < total + one_more


def test_more_workers_than_trainings_help_nothing():
    assert budget.steps(plan(seeds=1), COSTS, 2) == budget.steps(plan(seeds=1), COSTS, 9)


def test_steps_that_are_given_come_first():
    assert budget.steps(plan(steps=7, budget=1), COSTS, 1) == 7


def test_a_budget_that_buys_nothing_is_exceeded():
    assert budget.steps(plan(budget=1), COSTS, 1) == budget.FEWEST_STEPS
    seconds = 3 * (1.0 + 2.0 + 0.04 * budget.FEWEST_STEPS) * budget.CAUTION
    assert budget.training_seconds(plan(), COSTS, 1, budget.FEWEST_STEPS) == pytest.approx(seconds)


def test_shares_of_the_budget_make_a_whole():
    assert pytest.approx(1) == budget.TRAINING + budget.SPEED + budget.LENGTH
    assert budget.allowance(plan(), "speed") == budget.SPEED * 100
    assert budget.allowance(plan(), "length") == budget.LENGTH * 100
    assert budget.allowance(plan(budget=5), "calibrate") == 0.5
    assert budget.allowance(plan(), "calibrate") == budget.CALIBRATION_SECONDS


def test_timeouts():
    assert budget.timeout(plan(), 1.0) == budget.LEAST_TIMEOUT
    assert budget.timeout(plan(), 100.0) == 400
    assert budget.timeout(plan(timeout="5s"), 100.0) == 5


def test_jobs_of_a_plan():
    chosen = plan(seeds=[2, 5])
    assert [job.name for job in trainings(chosen)] == [
        "train/softmax/2",
        "train/relu/2",
        "train/softmax/5",
        "train/relu/5",
    ]
    assert [job.name for job in measurements(chosen)] == ["speed", "length"]
    assert [job.name for job in measurements(plan(site="output"))] == ["speed"]
    assert [job.name for job in calibrations(chosen)] == ["calibrate/softmax", "calibrate/relu"]


def test_time_left_counts_running_shares_workers_and_drift():
    state = State(100, COSTS, {}, {})
    train, other, speed = Job("train", "softmax", 0), Job("train", "relu", 0), Job("speed")
    clockwork = Clockwork(plan(), state, 2, [train, other, speed])
    assert clockwork.left({}) == pytest.approx((2 + 5) / 2 + 15)
    assert clockwork.left({"train/relu/0": 0.5}) == pytest.approx((2 + 2.5) / 2 + 15)
    clockwork.ended(line(train, "ok", seconds=4.0))  # twice what was expected
    assert clockwork.left({}) == pytest.approx(2 * 5 / 2 + 15)
    clockwork.ended(line(other, "crashed"))
    clockwork.ended(line(speed, "ok", seconds=20.0))
    assert clockwork.left({}) == 0


def test_a_candidate_that_was_not_calibrated_is_expected_to_take_no_time():
    assert Clockwork(plan(), State(5, {}, {}, {}), 1, []).expected(Job("train", "relu", 0)) == 0


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (65.6, "1:06"), (3723, "1:02:03"), (-3, "0:00")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown
