import math
from functools import partial

import pytest
import torch
from torch.nn.functional import silu

from manymax.attention.module import create_attention
from manymax.claims.experiments.approximation import InverseSqrt, Reciprocal, SiLU
from manymax.claims.experiments.polynomial import PolynomialAttention, other_operations, to_polynomial
from manymax.maps.power_softmax import PowerSoftmax
from manymax.models.gpt import GPT

EXACT = {Reciprocal: torch.reciprocal, InverseSqrt: torch.rsqrt, SiLU: silu}


def fitted(kind, low, high, *, tolerance=1e-4, margin=1.0):
    one = kind(tolerance, margin)
    one(torch.tensor([low, high], dtype=torch.float64))
    one.fit()
    return one


def grid(low, high):
    return torch.cat([torch.linspace(low, high, 5000), torch.tensor([low, high])]).double()


@pytest.mark.parametrize("kind", EXACT)
def test_before_the_fit_it_is_the_function_and_remembers_the_range(kind):
    one, x = kind(1e-3, 2.0), torch.tensor([0.5, 3.0])
    assert one(x).equal(EXACT[kind](x))
    one(torch.tensor([2.0, 4.0]))
    assert (one.low, one.high, one.degree) == (0.5, 4.0, 0)


@pytest.mark.parametrize("kind", [Reciprocal, InverseSqrt])
@pytest.mark.parametrize(("low", "high"), [(1.0, 1.5), (0.01, 30.0), (1e-3, 1e4), (5.0, 5.0)])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_the_relative_error_is_below_the_tolerance_and_no_iteration_too_many(kind, low, high, tolerance):
    one = fitted(kind, low, high, tolerance=tolerance)
    x = torch.logspace(math.log10(low), math.log10(high), 4000, dtype=torch.float64).clamp(low, high)
    error = (one(x) / EXACT[kind](x) - 1).abs().max()
    assert error <= tolerance * (1 + 1e-9)
    if one.degree > 1:
        one.degree -= 1
        assert (one.polynomial(x) / EXACT[kind](x) - 1).abs().max() > tolerance


def test_the_reciprocals_error_is_the_stated_power():
    one = fitted(Reciprocal, 0.1, 4.0, tolerance=0.3)
    x = grid(0.1, 4.0)
    expected = (1 - 2 / 4.1 * x) ** (2**one.degree)
    assert torch.allclose(1 - one(x) * x, expected, atol=1e-12)


@pytest.mark.parametrize("bound", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_silu_to_the_tolerance(bound, tolerance):
    one = fitted(SiLU, -bound, bound / 2, tolerance=tolerance)
    x = grid(-bound, bound)
    assert (one(x) - silu(x)).abs().max() <= tolerance * 1.01
    assert one.degree % 2 == 0
    assert len(one.coefficients) == one.degree + 1


@pytest.mark.parametrize("kind", EXACT)
def test_the_margin_widens_the_range(kind):
    low, high = (-2.0, 3.0) if kind is SiLU else (0.5, 3.0)
    wide = fitted(kind, low, high, margin=4.0)
    x = grid(4 * low if kind is SiLU else low / 4, 4 * high)
    error = wide(x) - EXACT[kind](x)
    assert (error if kind is SiLU else error / EXACT[kind](x)).abs().max() <= 1.01e-4
    narrow = fitted(kind, low, high)
    assert (narrow(x) - EXACT[kind](x)).abs().max() > 1e-2


def make_gpt(p=4, **options):
    attention = partial(create_attention, "power_softmax", **{"p": p, "eps": 0.05, "length_agnostic": True} | options)
    model = GPT(40, depth=2, width=32, num_heads=2, attention=attention)
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.output.weight, std=0.3)
        torch.nn.init.normal_(block.mlp.output.weight, std=0.3)
    return model


@pytest.mark.parametrize("p", [2, 6])
def test_the_polynomial_computes_what_the_model_does(p):
    model, tokens = make_gpt(p), torch.randint(40, (3, 17))
    polynomial = to_polynomial(model, tokens, tolerance=1e-9, margin=1.5)
    with torch.no_grad():
        out = polynomial.logits(model.embedding(tokens).double())
        expected = model.logits(tokens)
    assert float((out - expected).abs().max()) < 2e-5 * float(expected.abs().max())


def test_a_coarse_polynomial_is_another_function():
    model, tokens = make_gpt(), torch.randint(40, (3, 17))
    polynomial = to_polynomial(model, tokens, tolerance=0.2, margin=1.5)
    with torch.no_grad():
        error = (polynomial.logits(model.embedding(tokens).double()) - model.logits(tokens)).abs().max()
    assert error > 1e-2


def test_only_sums_and_products_touch_the_text():
    model = make_gpt()
    polynomial = to_polynomial(model, torch.randint(40, (2, 9)), tolerance=1e-3, margin=2.0)
    embedded = model.embedding(torch.randint(40, (1, 5))).double()
    assert other_operations(polynomial.logits, embedded) == []
    model.embedding = torch.nn.Identity()
    assert {"exp", "div"} & set(other_operations(model.logits, embedded.float()))


def test_other_operations_follow_the_data_alone():
    x = torch.rand(3, 4)
    assert other_operations(lambda x: (x * torch.arange(4.0).exp()).sum(-1), x) == []
    assert other_operations(lambda x: (x @ x.T).exp(), x) == ["exp"]
    assert other_operations(lambda x: x / 2 + 1 / x, x) == ["div", "reciprocal"]
    assert other_operations(lambda x: torch.where(x > 0, x, 0), x) == ["gt", "where"]


def test_what_the_polynomial_cannot_be_made_of():
    with pytest.raises(ValueError, match="length-agnostic"):
        to_polynomial(make_gpt(length_agnostic=False), torch.zeros(1, 2, dtype=torch.int64), tolerance=1e-3, margin=2.0)
    with pytest.raises(ValueError, match="temperature 1"):
        PolynomialAttention(PowerSoftmax(2.0, length_agnostic=True), Reciprocal(1e-3, 2.0))
    rule = PowerSoftmax(length_agnostic=True)
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="is_causal"):
        PolynomialAttention(rule, Reciprocal(1e-3, 2.0))(x, x, x, is_causal=False)
