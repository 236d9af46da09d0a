"""Sparsemax and entmax: against the maximum that defines them, the entmax package, and their stated error."""

from __future__ import annotations

import math

import entmax as peer
import numpy as np
import pytest
import torch
from map_cases import entmax as oracle
from map_cases import random_mask, scores
from scipy.optimize import minimize

import manymax as mm
from manymax.maps.entmax_solver import solve_entmax, solve_entmax15, solve_sparsemax


def best_weights(x, alpha):
    """Return the p of the simplex that maximises p x + H_alpha(p), by a general solver of convex programmes."""

    def loss(p):
        if alpha == 1:
            return -p @ x + (p * np.log(np.maximum(p, 1e-300))).sum()
        return -p @ x - ((p - p**alpha) / (alpha * (alpha - 1))).sum()

    def slope(p):
        if alpha == 1:
            return -x + np.log(np.maximum(p, 1e-300)) + 1
        return -x - (1 - alpha * p ** (alpha - 1)) / (alpha * (alpha - 1))

    start, ones = np.full(len(x), 1 / len(x)), np.ones(len(x))
    simplex = {"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: ones}
    found = minimize(
        loss, start, jac=slope, bounds=[(0, 1)] * len(x), constraints=simplex, options={"ftol": 1e-15, "maxiter": 500}
    )
    return torch.from_numpy(found.x)


@pytest.mark.parametrize("alpha", [1, 1.0, 1.2, 1.5, 2.0, 2.5])
def test_solves_the_programme_along_any_dim_under_a_mask(alpha):
    """The package that others use has no mask, no alpha = 1, and rows of sparsemax_bisect only along the last dim."""
    x, mask = scores(5, 3, seed=2), random_mask(5, 3, seed=1, keep=0.8)
    weights = mm.entmax(x, alpha, 0, mask=mask)
    for column in range(3):
        keep = mask[:, column]
        expected = best_weights(x[keep, column].numpy(), alpha)
        torch.testing.assert_close(weights[keep, column], expected, rtol=0, atol=2e-6)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    x = scores(40, 6, seed=3, spread=1.0)
    weights = mm.sparsemax(x)
    for row, w in zip(x, weights, strict=True):
        torch.testing.assert_close(w, best_weights(2 * row.numpy() / 2, 2.0), rtol=0, atol=2e-6)
    # Nothing else on the simplex is nearer.
    others = torch.softmax(scores(500, 1, 6, seed=4, spread=4.0), -1)
    assert ((x - others).square().sum(-1) >= (x - weights).square().sum(-1)).all()


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("spread", [0.01, 1.0, 10.0])
def test_equals_the_entmax_package(n, spread):
    x = scores(8, n, seed=n, spread=spread)
    for ours, theirs in ((mm.sparsemax, peer.sparsemax), (mm.entmax15, peer.entmax15)):
        mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        upstream = scores(8, n, seed=1)
        got, expected = ours(mine), theirs(other, -1)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        (grad,), (wanted,) = torch.autograd.grad(got, mine, upstream), torch.autograd.grad(expected, other, upstream)
        torch.testing.assert_close(grad, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alpha", [1.05, 1.3, 1.75, 2.3])
def test_equals_the_entmax_packages_bisection_and_its_gradients(alpha):
    x = scores(6, 9, seed=5)
    rows = torch.full((6, 1), alpha, dtype=torch.float64)
    mine, theirs = ((x.clone().requires_grad_(), rows.clone().requires_grad_()) for _ in range(2))
    got, expected = mm.entmax(*mine), peer.entmax_bisect(*theirs, dim=-1, n_iter=100)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
    upstream = scores(6, 9, seed=6)
    for grad, wanted in zip(
        torch.autograd.grad(got, mine, upstream), torch.autograd.grad(expected, theirs, upstream), strict=True
    ):
        torch.testing.assert_close(grad, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_special_alphas(kind):
    x, mask = scores(6, 9, seed=7), random_mask(6, 9)
    for alpha, same in ((1.0, mm.softmax), (1.5, mm.entmax15), (2.0, mm.sparsemax)):
        got = mm.entmax(x, kind(alpha), mask=mask)
        if kind is float:
            assert torch.equal(got, same(x, mask=mask))
        torch.testing.assert_close(got, same(x, mask=mask), rtol=1e-12, atol=1e-14)


def test_alpha_tends_to_one_without_a_jump():
    x = scores(5, 8, seed=8)
    alphas = torch.tensor([1.0, 1 + 1e-12, 1 + 1e-8, 1 + 1e-4], dtype=torch.float64)
    slopes = []
    for alpha in alphas:
        leaf = alpha.clone().requires_grad_()
        weights = mm.entmax(x, leaf)
        assert (weights - torch.softmax(x, -1)).abs().max() <= 2 * (alpha.item() - 1) + 1e-15
        slopes.append(torch.autograd.grad((weights * x).sum(), leaf)[0])
    exact = torch.softmax(x, -1)
    logs = exact.log()
    expected = (exact * ((exact * logs.square()).sum(-1, keepdim=True) - logs.square()) / 2 * x).sum()
    torch.testing.assert_close(slopes[0], expected)
    torch.testing.assert_close(torch.stack(slopes), expected.expand(4), rtol=2e-3, atol=0)


def _hard_rows():
    """Yield rows that are hard on a root finder: ties, crowds just above and below the cut, steps of every size."""
    k = torch.arange(400, dtype=torch.float64)
    one = torch.where(k == 0, 0.0, -1.0)
    yield from (-(1 - 0.5**k), -(1 - 0.9**k), -k / 400, -2 * (k / 400) ** 4, -torch.log1p(k), 0 * k, one * 50)
    yield from (one * 0.999, one * (1 - 1e-9), one * 1e-6, -((k / 400).sqrt()), k * 1e3, k * 0 + 1e4)
    for spread in (1e-3, 0.1, 1.0, 20.0, 1e3):
        yield scores(400, seed=1, spread=spread)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("alpha", [1 + 1e-6, 1.01, 1.2, 1.5, 1.8, 1.99, 2.0, 2.2, 2.7, 4.0])
def test_error_is_what_the_docstring_states(alpha, dtype):
    rows = torch.stack(list(_hard_rows())).to(dtype)
    eps = torch.finfo(dtype).eps
    exact = torch.stack([torch.from_numpy(oracle(alpha)(row.double().numpy())) for row in rows])
    results = [solve_entmax(rows, alpha - 1), solve_entmax(rows, torch.tensor(alpha - 1, dtype=dtype))]
    results += [solve(rows) for solve, a in ((solve_sparsemax, 2.0), (solve_entmax15, 1.5)) if a == alpha]
    bound = 4 * eps if alpha <= 2 else ((alpha - 1) * eps) ** (1 / (alpha - 1))
    # The oracle's power of 1 / (alpha - 1) multiplies its own rounding; a float32 alpha is not exactly alpha.
    slack = 2.3e-16 / (alpha - 1) + (eps if dtype == torch.float32 else 0) * 4
    for weights in results:
        assert (weights.double().sum(-1) - 1).abs().max() <= 8 * eps
        assert (weights.double() - exact).abs().max() <= bound + slack
        assert (weights >= 0).all()


def test_infinitely_steep_start_is_not_worse_than_bisection():
    """At alpha = 10 a cut within 1e-16 of a score leaves a weight of 2 %."""
    x = scores(200, 30, seed=3, dtype=torch.float64)
    weights = mm.entmax(x, 10.0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(200, dtype=torch.float64))
    assert (weights - peer.entmax_bisect(x, 10.0, n_iter=200)).abs().max() < 2 * (9 * 2.3e-16) ** (1 / 9)
    assert math.isclose(float(mm.entmax(torch.tensor([5.0, 0.0]), 50.0)[0]), 1)


@pytest.mark.parametrize("spread", [1e-4, 0.01, 1.0])
def test_rows_as_long_as_a_vocabulary(spread):
    """The exact algorithms subtract means of 100,000 scores; what that loses is won back before the weights."""
    x = scores(1, 100_000, spread=spread, dtype=torch.float32)
    for function in (mm.sparsemax, mm.entmax15):
        weights, exact = function(x).double(), function(x.double())
        assert (weights.sum(-1) - 1).abs() <= 8 * torch.finfo(torch.float32).eps
        assert (weights - exact).abs().max() <= 2e-6 * exact.max()


@pytest.mark.parametrize("alpha", [1.0, 1.001, 1.05, 1.5, 2.0])
def test_gradient_of_alpha_in_float32(alpha):
    """A form with differences of nearly equal terms over (alpha - 1)^2 would lose all digits near 1."""
    grads = []
    for dtype in (torch.float32, torch.float64):
        x, upstream = (scores(6, 9, seed=s, dtype=torch.float32).to(dtype) for s in (5, 6))
        learnt = torch.full((6, 1), alpha, dtype=torch.float32).to(dtype).requires_grad_()
        (grad,) = torch.autograd.grad(mm.entmax(x, learnt), learnt, upstream)
        grads.append(grad.double())
    assert (grads[0] - grads[1]).abs().max() <= 1e-5 * grads[1].abs().max()


def test_a_crowd_below_one_high_score():
    """Each of 30,000 weights near 3e-6 keeps two digits, though the cut is rounded to 6e-8 and their roots are 2e-3."""
    x = scores(1, 30_000, spread=1e-3, dtype=torch.float32)
    x[0, 0] += 1.9
    weights, exact = mm.entmax15(x).double(), mm.entmax15(x.double())
    crowd = exact > 1e-3 * exact.median()
    assert crowd.sum() > 20_000
    assert ((weights - exact).abs() / exact)[crowd].max() <= 1e-2
