"""What maps return: the formula, along any dim, under any mask, and what follows from each formula."""

from __future__ import annotations

import math

import pytest
import torch
from map_cases import CASES, WEIGHTS, named, random_mask, scores

import manymax as mm
from manymax.maps.registry import COMPANIONS

every_case = pytest.mark.parametrize("case", named(CASES))
every_map = pytest.mark.parametrize("case", named(WEIGHTS))


def assert_close(got, expected, rtol=1e-11, atol=1e-12):
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True)


def test_the_list_has_every_map():
    assert {case.name for case in CASES} == {*mm.list_maps(), *COMPANIONS} - {"logsumexp"}


@pytest.mark.parametrize("dim", [-1, 0, 1, -3])
@every_case
def test_formula_along_any_dim(case, dim):
    x = scores(3, 5, 7, seed=dim + 9)
    assert_close(case(x, dim), case.expected(x, dim))


@every_case
def test_formula_of_large_scores(case):
    x = torch.tensor([[20.5, 25.0, -20.5, 3.0, 36.0], [21.0, 0.1, -0.3, -39.0, 22.0]], dtype=torch.float64)
    assert_close(case(x), case.expected(x))


@pytest.mark.parametrize("dim", [2, 0])
@every_case
def test_formula_under_a_mask(case, dim):
    x, mask = scores(4, 3, 6, seed=1, spread=3.0), random_mask(4, 3, 6, seed=2)
    mask[1] = False
    mask[..., 2] = False
    x[0, 0, 0] = -math.inf
    assert_close(case(x, dim, mask=mask), case.expected(x, dim, mask))


@every_case
def test_a_mask_broadcasts(case):
    x, mask = scores(2, 4, 5), random_mask(4, 1, seed=5, keep=0.5)
    mask[0], mask[1] = True, False
    assert_close(case(x, 1, mask=mask), case(x, 1, mask=mask.expand(2, 4, 5)))
    assert_close(case(x, mask=torch.tensor(True)), case(x))  # a mask without dims


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
@every_case
def test_masked_scores_may_be_anything(case, garbage):
    x, mask = scores(4, 6), random_mask(4, 6, seed=3)
    spoilt = torch.where(mask, x, garbage)
    assert torch.equal(case(spoilt, mask=mask), case(x, mask=mask))
    assert (case(spoilt, mask=mask)[~mask] == case.hidden).all()


@every_case
def test_a_masked_entry_is_as_good_as_absent(case):
    x, keep = scores(4, 9), random_mask(9, seed=4)
    assert_close(case(x, mask=keep)[:, keep], case(x[:, keep]))
    lowest = torch.where(keep, x, -math.inf)
    assert_close(case(lowest), case(x, mask=keep))


@every_map
def test_sums(case):
    sums = case(scores(50, 8, spread=2.0)).sum(-1)
    one = (sums - 1).abs() < 1e-12
    assert bool(one.all()) == case.sums == mm.create_map(case.name, **case.options).sums_to_one


@every_case
def test_shift(case):
    x = scores(20, 6)
    same = torch.allclose(case(x + 0.7), case(x), rtol=0, atol=1e-9)
    assert same == case.shift


@every_case
def test_scale(case):
    x = scores(20, 6)
    same = torch.allclose(case(x * 3.0), case(x), rtol=0, atol=1e-9)
    assert same == case.scale


@every_case
def test_order_of_weights_follows_scores(case):
    ordered = case(scores(40, 9, spread=3.0).sort(-1).values)
    assert bool((ordered.diff(dim=-1) >= 0).all()) == case.monotone


@every_case
def test_permuting_scores_permutes_weights(case):
    x, order, rows = scores(5, 8), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4]), torch.tensor([2, 0, 4, 1, 3])
    assert_close(case(x[rows][:, order]), case(x)[rows][:, order])


@every_case
def test_equal_scores_weigh_the_same(case):
    weights = case(torch.full((3, 7), 0.8, dtype=torch.float64))
    assert_close(weights, weights[:1, :1].expand(3, 7))


def test_rows_of_zeros_without_eps_weigh_nothing():
    for weights in (mm.power_softmax(torch.zeros(2, 3)), mm.spherical_softmax(torch.zeros(2, 3), eps=0.0)):
        assert torch.equal(weights, torch.zeros(2, 3))


@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1e15])
def test_powers_of_tiny_and_huge_scores(factor):
    x = scores(3, 5, dtype=torch.float32)
    for power in (lambda v: mm.power_softmax(v, p=6), lambda v: mm.spherical_softmax(v, eps=0.0)):
        torch.testing.assert_close(power(x * factor), power(x), rtol=1e-5, atol=1e-12)
    assert torch.isfinite(mm.power_softmax(x * factor, eps=1e-3)).all()


def test_topk_keeps_ties_and_all_of_a_short_row():
    x = torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0])
    assert (mm.topk_softmax(x, k=2) > 0).tolist() == [False, True, True, False, True]
    mask = torch.tensor([True, True, False, True, False])
    assert (mm.topk_softmax(x, mask=mask, k=4) > 0).tolist() == mask.tolist()


def test_sinkhorn_balances_columns_and_stops_at_its_tolerance():
    x = scores(2, 6, 9, spread=4.0)
    balanced = mm.sinkhorn(x, iterations=101)
    assert_close(balanced.sum(-2), torch.full((2, 9), 6 / 9, dtype=torch.float64), atol=1e-4)
    early = mm.sinkhorn(x, iterations=101, tolerance=0.1)
    assert not torch.allclose(early, balanced, atol=1e-4)
    assert any(torch.equal(early[0], mm.sinkhorn(x[0], iterations=n)) for n in range(3, 41, 2))
    # Each matrix stops on its own: beside a matrix that needs longer, the result is the same.
    beside = mm.sinkhorn(torch.stack([x[0], x[0] * 4]), iterations=101, tolerance=0.1)
    assert torch.equal(beside[0], early[0])


def test_sinkhorn_of_one_row_is_uniform():
    assert_close(mm.sinkhorn(scores(5)), torch.full((5,), 0.2, dtype=torch.float64))
