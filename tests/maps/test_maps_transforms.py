"""torch.compile without graph breaks, and torch.func."""

from __future__ import annotations

import math

import pytest
import torch
from map_cases import CASES, named, random_mask, scores

import manymax as mm

# torch 2.13 breaks its own advice when it compiles: it instantiates torch.autograd.Function and uses torch.jit.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
]
every_case = pytest.mark.parametrize("case", named(CASES))
# One variant of each map is compiled: the others share its code.
FIRST = list({case.name: case for case in reversed(CASES)}.values())


def check_compiled(function, x, mask, backend="aot_eager"):
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    plain, traced = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, got = function(plain, mask), compiled(traced, mask)
    torch.testing.assert_close(got, expected)
    upstream = scores(*x.shape, seed=3, dtype=x.dtype)
    (wanted,) = torch.autograd.grad(expected, plain, upstream)
    (grad,) = torch.autograd.grad(got, traced, upstream)
    torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("case", named(FIRST))
def test_compiles_whole(case):
    x, mask = scores(3, 5, dtype=torch.float32), random_mask(3, 5)
    check_compiled(lambda x, mask: case(x, 0, mask=mask), x, mask)


@pytest.mark.slow
@every_case
def test_compiles_to_machine_code(case):
    x, mask = scores(3, 5, dtype=torch.float32), random_mask(3, 5)
    check_compiled(lambda x, mask: case(x, -1, mask=mask), x, mask, "inductor")


@pytest.mark.parametrize("alpha", [1.0, 1.3])
def test_compiles_with_a_learnt_option(alpha):
    module = mm.create_map("entmax", alpha=torch.nn.Parameter(torch.tensor(alpha)))
    x = scores(3, 5, dtype=torch.float32)
    torch.compiler.reset()
    got = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, module(x))
    (grad,) = torch.autograd.grad((got * x).sum(), module.alpha)
    torch.testing.assert_close(grad, torch.autograd.grad((module(x) * x).sum(), module.alpha)[0])


def test_compiled_alpha_below_one_is_nan():
    torch.compiler.reset()
    compiled = torch.compile(mm.entmax, fullgraph=True, backend="aot_eager")
    assert torch.isnan(compiled(torch.zeros(3), torch.tensor(0.9))).all()


@every_case
def test_vmap(case):
    x, mask = scores(4, 3, 5), random_mask(4, 3, 5)
    got = torch.func.vmap(lambda x, mask: case(x, 1, mask=mask))(x, mask)
    torch.testing.assert_close(got, case(x, 2, mask=mask))
    across = torch.func.vmap(lambda x: case(x, 0), in_dims=2, out_dims=2)(x)
    torch.testing.assert_close(across, case(x.movedim(2, 0), 1).movedim(0, 2))


@every_case
def test_grad_of_grad_and_per_sample_gradients(case):
    x, upstream = scores(4, 2, 5), scores(4, 2, 5, seed=1)

    def loss(x, upstream):
        return (case(x) * upstream).sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, upstream), leaf, create_graph=True)
    torch.testing.assert_close(torch.func.grad(loss)(x, upstream), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x, upstream), expected)
    (second,) = torch.autograd.grad(expected.square().sum(), leaf)
    got = torch.func.grad(lambda x: torch.func.grad(loss)(x, upstream).square().sum())(x)
    torch.testing.assert_close(got, second)


def test_vmap_over_an_option():
    x, alphas = scores(5), torch.tensor([1.0, 1.2, 1.5, 2.0, 3.0], dtype=torch.float64)
    got = torch.func.vmap(lambda alpha: mm.entmax(x, alpha))(alphas)
    expected = torch.stack([mm.entmax(x, float(alpha)) for alpha in alphas])
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    slopes = torch.func.vmap(torch.func.grad(lambda alpha: mm.entmax(x, alpha).square().sum()))(alphas[:4])
    step = 1e-6
    ends = [torch.func.vmap(lambda alpha: mm.entmax(x, alpha).square().sum())(alphas[1:4] + s) for s in (step, -step)]
    torch.testing.assert_close(slopes[1:], (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)
    assert math.isfinite(slopes[0])
