"""What a table's cell or a figure's point holds: a number with its interval, a judgement, or why there is neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NOTICEABLE_MEMORY = 0.005  # half a percent: what a ratio shown with two decimals rounds away

Tone = Literal["baseline", "better", "worse", "same", "unclear", "failed", "missing"]


@dataclass(frozen=True)
class Missing:
    """A value that nobody measured, and why."""

    reason: str


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        reach: half the 95 % interval; None where one seed allows none.
        clear: whether the interval leaves out zero.
    """

    mean: float
    reach: float | None
    seeds: int
    clear: bool = False


@dataclass(frozen=True)
class Ratio:
    """A ratio to the baseline with its interval; amount is the candidate's own quantity, where measured."""

    low: float
    middle: float
    high: float
    amount: float | None = None


@dataclass(frozen=True)
class StateSize:
    """What generation keeps of one sequence.

    Attributes:
        tokens: after how many.
        amount: bytes.
        ratio: to the baseline's; None where that was not measured.
        grows: whether half as many tokens leave less.
    """

    tokens: int
    amount: int
    ratio: float | None
    grows: bool


@dataclass(frozen=True)
class Verdict:
    """A judgement: its tone for the eye, a word, and what restricts it."""

    tone: Tone
    word: str
    detail: str = ""


@dataclass(frozen=True)
class Failure:
    """Something that did not end well: `where` says in which job."""

    name: str
    where: str
    status: str
    message: str


@dataclass(frozen=True)
class Stability:
    """How training went, over all seeds, failed ones included: sums of counts, worst of extremes, means of shares."""

    nan_steps: float | Missing
    largest_score: float | Missing
    grad_norm_median: float | Missing
    grad_norm_max: float | Missing
    entropy: float | Missing
    first_token_share: float | Missing


@dataclass(frozen=True)
class Predictions:
    """How good predictions and their probabilities are: means over the seeds that ended well."""

    accuracy: float | Missing
    top5_accuracy: float | Missing
    calibration_error: float | Missing


@dataclass(frozen=True)
class Row:
    """One candidate. `position` is its place in the plan, which fixes its colour everywhere."""

    name: str
    position: int
    backends: list[str]
    seeds: int
    quality: Estimate | Missing
    difference: Estimate | Missing
    verdict: Verdict
    train: Ratio | Missing
    generate: Ratio | Missing
    memory: Ratio | Missing
    state: StateSize | Missing
    stability: Stability
    predictions: Predictions
    failures: list[Failure]


def speed_verdict(ratio: Ratio | Missing, noise: float | None) -> Verdict:
    """Say whether a speed ratio's interval lies outside the noise floor."""
    if isinstance(ratio, Missing):
        return Verdict("missing", ratio.reason)
    bar = 1 + (noise or 0.0)
    if ratio.low > bar:
        return Verdict("better", "faster")
    return Verdict("worse", "slower") if ratio.high < 1 / bar else Verdict("same", "no difference")


def state_verdict(state: StateSize | Missing) -> Verdict:
    """Say whether a state is larger or smaller than the baseline's; states are counted, so there is no noise."""
    if isinstance(state, Missing):
        return Verdict("missing", state.reason)
    if state.ratio is None or abs(state.ratio - 1) < NOTICEABLE_MEMORY:
        return Verdict("same", "no difference")
    return Verdict("worse", "more") if state.ratio > 1 else Verdict("better", "less")


def memory_verdict(ratio: Ratio | Missing) -> Verdict:
    """Say whether memory differs on every seed, and by more than rounding."""
    if isinstance(ratio, Missing):
        return Verdict("missing", ratio.reason)
    if ratio.low > 1 + NOTICEABLE_MEMORY:
        return Verdict("worse", "more")
    return Verdict("better", "less") if ratio.high < 1 - NOTICEABLE_MEMORY else Verdict("same", "no difference")
