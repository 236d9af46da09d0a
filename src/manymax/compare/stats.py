"""What can be said from a few seeds: paired differences with Student's interval, medians with an exact one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev


@dataclass(frozen=True)
class Difference:
    """A candidate minus the baseline, averaged over seeds that both finished.

    Attributes:
        mean: the average of the paired differences; NaN without a pair.
        low: lower end of the interval; None below two pairs, where nothing can be said about the spread.
        high: upper end of the interval; None below two pairs.
        pairs: how many seeds both finished.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def clear(self) -> bool:
        """Return whether the interval exists and leaves out zero; if not, the verdict is "no difference"."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def student_cdf(t: float, df: int) -> float:
    r"""Return P(T <= t) of Student's distribution with df degrees of freedom, in closed form.

    With $\theta = \arctan(t / \sqrt{\nu})$ the probability of $|T| \le t$ is a finite sum of powers of
    $\cos\theta$, for odd and even $\nu$ each (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4).
    """
    theta = math.atan(t / math.sqrt(df))
    cosine, term, total = math.cos(theta), 1.0, 0.0
    if df % 2:
        for k in range(1, (df - 1) // 2 + 1):
            term = cosine if k == 1 else term * cosine**2 * (2 * k - 2) / (2 * k - 1)
            total += term
        inside = 2 / math.pi * (theta + math.sin(theta) * total)
    else:
        for k in range(df // 2):
            term = 1.0 if k == 0 else term * cosine**2 * (2 * k - 1) / (2 * k)
            total += term
        inside = math.sin(theta) * total
    return (1 + inside) / 2


def student_quantile(probability: float, df: int) -> float:
    """Return t with P(T <= t) = probability, by bisection to double precision."""
    if not 0 < probability < 1:
        raise ValueError(f"probability: expected a number between 0 and 1, got {probability!r}")
    if df < 1:
        raise ValueError(f"df: expected 1 or more, got {df!r}")
    if probability < 0.5:
        return -student_quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while student_cdf(high, df) < probability:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, df) < probability else (low, middle)
    return (low + high) / 2


def paired_difference(
    candidate: Sequence[float | None], baseline: Sequence[float | None], confidence: float = 0.95
) -> Difference:
    """Compare two sequences that belong together seed by seed.

    Args:
        candidate: one value a seed; None or NaN where the seed has none.
        baseline: the baseline's values in the same order.
        confidence: probability that the interval covers the true difference.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(candidate) != len(baseline):
        raise ValueError(f"baseline: expected {len(candidate)} values, one for each seed, got {len(baseline)}")
    pairs = [(c, b) for c, b in zip(candidate, baseline, strict=True) if c is not None and b is not None]
    values = [c - b for c, b in pairs if math.isfinite(c - b)]
    if len(values) < 2:
        return Difference(values[0] if values else math.nan, None, None, len(values))
    mean = fmean(values)
    reach = student_quantile((1 + confidence) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Difference(mean, mean - reach, mean + reach, len(values))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (low, median, high): an interval for the median that holds for any distribution.

    The ends are order statistics: the k-th smallest and k-th largest value enclose the median unless fewer than k
    values fall on one side of it, which is a sum of binomial probabilities. Below 6 values no k reaches 95 % and the
    ends are the smallest and the largest value.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("values: expected at least one")
    ordered, n = sorted(values), len(values)
    k, missed = 1, 2 * 0.5**n
    while True:
        missed += 2 * math.comb(n, k) * 0.5**n
        if missed > 1 - confidence or 2 * (k + 1) > n:
            break
        k += 1
    return ordered[k - 1], median(ordered), ordered[n - k]
