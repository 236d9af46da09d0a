"""What the budget buys: steps of training for all candidates alike, and time to measure speed and length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manymax.compare.plan import Plan

TRAINING, SPEED, LENGTH = 0.70, 0.15, 0.15  # shares of the budget
# Calibration sees a few steps of each candidate while little else runs; 21 trainings take about this much longer.
CAUTION = 1.1
FEWEST_STEPS = 10
LEAST_TIMEOUT = 60.0
CALIBRATION_SECONDS = 1.5
CALIBRATION_TIMEOUT = 60.0


@dataclass(frozen=True)
class Cost:
    """How long a training of one candidate takes, as calibration measured it.

    Attributes:
        step: seconds of an optimiser step.
        fixed: seconds of everything else: building the model, all evaluations, probing the weights.
    """

    step: float
    fixed: float

    def seconds(self, steps: int) -> float:
        """Return how long a training of so many steps takes."""
        return self.fixed + self.step * steps


def steps(plan: Plan, costs: Mapping[str, Cost], workers: int) -> int:
    """Return how many steps every training gets, so that all of them together fit into the budget.

    A budget that is too small for FEWEST_STEPS is exceeded; `training_seconds` says by how much.

    Args:
        plan: with `budget` and perhaps `steps`, which comes first.
        costs: by candidate, of those that calibration could train.
        workers: trainings that run at once.
    """
    if plan.steps is not None or not costs:
        return plan.steps or 0
    fixed = training_seconds(plan, costs, workers, 0)
    per_step = training_seconds(plan, costs, workers, 1) - fixed
    return max(FEWEST_STEPS, int((TRAINING * plan.budget - fixed) / per_step))


def training_seconds(plan: Plan, costs: Mapping[str, Cost], workers: int, steps: int) -> float:
    """Return how long all trainings of so many steps take together."""
    seeds = len(plan.seeds)
    total = CAUTION * seeds * sum(cost.seconds(steps) for cost in costs.values())
    return total / min(workers, seeds * len(costs))


def allowance(plan: Plan, kind: str) -> float:
    """Return the seconds that a calibration, speed or length job should fill."""
    share = {"speed": SPEED, "length": LENGTH}
    return share[kind] * plan.budget if kind in share else min(CALIBRATION_SECONDS, plan.budget / 10)


def timeout(plan: Plan, expected: float) -> float:
    """Return when to stop a job that was expected to take so many seconds."""
    return max(LEAST_TIMEOUT, 4 * expected) if plan.timeout is None else plan.timeout
