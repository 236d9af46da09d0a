import math
import random

import pytest

from manymax.compare.stats import (
    Difference,
    median_interval,
    paired_difference,
    student_cdf,
    student_quantile,
)

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 10, 29, 30, 101, 500])
@pytest.mark.parametrize("t", [-3.7, -0.2, 0.0, 0.9, 2.5, 40.0])
def test_student_cdf_is_scipys(df, t):
    assert student_cdf(t, df) == pytest.approx(scipy_stats.t.cdf(t, df), abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 7, 30, 200])
@pytest.mark.parametrize("probability", [0.01, 0.3, 0.5, 0.9, 0.975, 0.9995])
def test_student_quantile_is_scipys(df, probability):
    assert student_quantile(probability, df) == pytest.approx(scipy_stats.t.ppf(probability, df), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("probability", "df"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_student_quantile_refuses(probability, df):
    with pytest.raises(ValueError, match="expected"):
        student_quantile(probability, df)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_difference_is_scipys_paired_interval(confidence):
    random.seed(0)
    candidate, baseline = ([random.gauss(2, 1) for _ in range(6)] for _ in range(2))
    found = paired_difference(candidate, baseline, confidence)
    expected = scipy_stats.ttest_rel(candidate, baseline).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((expected.low + expected.high) / 2)
    assert found.pairs == 6


def test_two_pairs_by_hand():
    # Differences 1 and 3: mean 2, standard error 1, t = tan(0.475 pi) with one degree of freedom.
    found = paired_difference([2.0, 5.0], [1.0, 2.0])
    assert (found.low, found.high) == pytest.approx((2 - math.tan(0.475 * math.pi), 2 + math.tan(0.475 * math.pi)))


def test_one_pair_has_no_interval_and_no_verdict():
    assert paired_difference([2.0], [1.5]) == Difference(0.5, None, None, 1)
    assert not paired_difference([2.0], [1.5]).clear


def test_pairs_with_a_missing_side_do_not_count():
    found = paired_difference([1.0, None, 3.0, math.nan, 4.0], [0.5, 1.0, None, 1.0, 3.0])
    assert (found.mean, found.pairs) == (0.75, 2)
    assert math.isnan(paired_difference([None], [1.0]).mean)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one for each seed"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("low", "high", "clear"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 1.0, False)]
)
def test_clear_means_zero_is_left_out(low, high, clear):
    assert Difference(0.0, low, high, 3).clear is clear


@pytest.mark.parametrize("n", [6, 9, 20, 41])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_median_interval_is_the_narrowest_that_binomial_probabilities_allow(n, confidence):
    low, middle, high = median_interval([float(i) for i in range(1, n + 1)], confidence)
    k = int(low)
    assert middle == (n + 1) / 2
    assert high == n + 1 - k
    assert 1 - 2 * scipy_stats.binom.cdf(k - 1, n, 0.5) >= confidence
    assert k + 1 > n / 2 or 1 - 2 * scipy_stats.binom.cdf(k, n, 0.5) < confidence


def test_median_interval_of_few_values_is_their_range():
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)
    assert median_interval([5.0]) == (5.0, 5.0, 5.0)
    with pytest.raises(ValueError, match="at least one"):
        median_interval([])
