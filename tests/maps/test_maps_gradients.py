"""Derivatives: first and second, of scores and of options; those that attention backends read; none where masked."""

from __future__ import annotations

import math

import pytest
import torch
from map_cases import CASES, named, random_mask, scores

import manymax as mm
from manymax.maps.pointwise import Pointwise
from manymax.maps.ratio import Ratio

every_case = pytest.mark.parametrize("case", named(CASES))
POINTWISE = [case for case in CASES if case.hidden == 0 and isinstance(case.module.rule(), Pointwise)]
RATIO = [case for case in CASES if case.hidden == 0 and isinstance(case.module.rule(), Ratio)]
# Tensor options, each inside its range, so that a small step stays inside.
LEARNT = [
    ("softmax", {"temperature": 0.7}),
    ("log_softmax", {"temperature": 0.7}),
    ("logsumexp", {"temperature": 0.7}),
    ("log_stablemax", {"temperature": 1.3}),
    ("sigmoid", {"bias": -0.4, "temperature": 2.0}),
    ("power_softmax", {"eps": 0.2, "temperature": 0.8}),
    ("power_softmax", {"eps": 0.2, "length_agnostic": True}),
    ("spherical_softmax", {"eps": 0.2}),
    ("sparsemax", {"temperature": 0.7}),
    ("entmax", {"alpha": 1.3}),
    ("entmax", {"alpha": 1.0001}),
    ("entmax", {"alpha": 1.5, "temperature": 0.7}),
    ("entmax", {"alpha": 2.4}),
    ("clipped_softmax", {"zeta": 1.1, "gamma": -0.05}),
    ("sinkhorn", {"eps": 0.6}),
    ("normalized", {"gain": 1.4, "bias": 0.2}),
]


@every_case
def test_first_and_second_derivatives(case):
    x, mask = scores(2, 4, seed=11).requires_grad_(), random_mask(2, 4, seed=2, keep=0.8)

    def shown(x):
        weights = case(x, 1, mask=mask)
        return torch.where(weights == -math.inf, 0, weights)

    assert torch.autograd.gradcheck(shown, x)
    assert torch.autograd.gradgradcheck(shown, x, fast_mode=True)


@pytest.mark.parametrize(("name", "options"), LEARNT)
def test_options_are_learnt(name, options):
    x, mask = scores(2, 2, 4, seed=7), random_mask(2, 2, 4, seed=9, keep=0.8)
    values = [v if isinstance(v, bool) else torch.full((2, 1), v, dtype=torch.float64) for v in options.values()]
    learnt = [v.requires_grad_() for v in values if isinstance(v, torch.Tensor)]

    def function(x, *learnt):
        given = iter(learnt)
        named_options = {k: v if isinstance(v, bool) else next(given) for k, v in options.items()}
        out = getattr(mm, name)(x, mask=mask, **named_options)
        return torch.where(out == -math.inf, 0, out)

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), *learnt))
    assert torch.autograd.gradgradcheck(function, (x, *learnt), fast_mode=True)


@pytest.mark.parametrize("case", named(POINTWISE))
def test_weight_and_its_derivative(case):
    rule, n = case.module.rule(), torch.tensor([[4.0], [9.0]], dtype=torch.float64)
    score = torch.cat([scores(2, 6, spread=3.0), torch.tensor([[-1e4], [1e4]])], 1).requires_grad_()
    weight = rule.weight(score, n)
    (derivative,) = torch.autograd.grad(weight.sum(), score)
    torch.testing.assert_close(rule.weight_grad(score.detach(), n), derivative)


@pytest.mark.parametrize("case", named(RATIO))
def test_numerator_and_its_derivative(case):
    rule, score = case.module.rule(), scores(3, 6, spread=3.0)
    score[0, 0] = 0.0
    shift = rule.shift(score, torch.ones_like(score, dtype=torch.bool)) * torch.tensor([[1.0], [1.3], [0.9]])
    score.requires_grad_()
    (derivative,) = torch.autograd.grad(rule.numerator(score, shift).sum(), score)
    torch.testing.assert_close(rule.numerator_grad(score.detach(), shift), derivative)


@pytest.mark.parametrize("case", named(RATIO))
def test_parts_of_a_row_merge(case):
    """Two parts, each with a shift of its own, and one of them empty in one row, give the weights of the whole."""
    x, rule = scores(3, 10, spread=4.0), case.module.rule()
    visible = random_mask(3, 10, seed=6)
    visible[1, :4] = False
    cut = rule.temperature
    parts = [(x[:, part] / cut, visible[:, part]) for part in (slice(0, 4), slice(4, 10))]
    shifts = [rule.shift(torch.where(shown, s, 0), shown) for s, shown in parts]
    whole = torch.maximum(*shifts)
    if rule.statistic == "none":
        assert not whole.any()
    numerators = [torch.where(shown, rule.numerator(s, c), 0) for (s, shown), c in zip(parts, shifts, strict=True)]
    scaled = [
        part * torch.exp(rule.log_scale(c) - rule.log_scale(whole)) for part, c in zip(numerators, shifts, strict=True)
    ]
    total = sum(part.sum(-1, keepdim=True) for part in scaled)
    extra = rule.extra(visible.sum(-1, keepdim=True).double())
    if extra is not None:
        total = total + extra * torch.exp(-rule.log_scale(whole))
    torch.testing.assert_close(torch.cat(scaled, -1) / total, case(x, mask=visible), rtol=1e-10, atol=1e-12)
    expected = torch.log(total) + rule.log_scale(whole)
    torch.testing.assert_close(rule.log_total(torch.where(visible, x, 0) / cut, visible), expected)


@every_case
@pytest.mark.parametrize("garbage", [0.0, math.nan, math.inf, -math.inf])
def test_a_row_that_shows_nothing(case, garbage):
    x = torch.full((3, 4), garbage, dtype=torch.float32)
    x[0] = scores(4, dtype=torch.float32)
    x.requires_grad_()
    temperature = torch.ones((), requires_grad=True)
    options = {**case.options, "temperature": temperature}
    mask = torch.tensor([[True], [False], [False]])
    weights = getattr(mm, case.name)(x, mask=mask, **options)
    assert (weights[1:] == case.hidden).all()
    shown = torch.where(weights == -math.inf, 0, weights)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either, which users hunt with this
        (shown * torch.arange(4.0)).sum().backward()
    assert (x.grad[1:] == 0).all()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(temperature.grad).all()
    # The gradients that flow in may be anything, as a loss of -inf makes them.
    (grad,) = torch.autograd.grad(case(x, mask=mask).sum(), x)
    assert (grad[1:] == 0).all()


@every_case
def test_masked_entries_have_no_gradient(case):
    x, mask = scores(4, 6), random_mask(4, 6, seed=8)
    spoilt = torch.where(mask, x, math.nan).requires_grad_()
    weights = torch.where(mask, case(spoilt, mask=mask), 0)
    (grad,) = torch.autograd.grad((weights * scores(4, 6, seed=1)).sum(), spoilt)
    assert (grad[~mask] == 0).all()
    assert torch.isfinite(grad).all()


def test_a_constant_row_of_normalized_has_a_gradient():
    x = torch.full((1, 4), 3.0, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mm.normalized(x, eps=0.5)[0, 0], x)
    torch.testing.assert_close(grad, torch.tensor([[1.5, -0.5, -0.5, -0.5]], dtype=torch.float64))


def test_clipped_weights_have_no_gradient():
    x = torch.tensor([9.0, 1.0, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    weights = mm.clipped_softmax(x, zeta=1.1, gamma=-0.1)
    assert weights.tolist() == [1, 0, 0, 0]
    (grad,) = torch.autograd.grad((weights * torch.arange(4.0)).sum(), x)
    assert (grad == 0).all()
