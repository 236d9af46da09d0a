"""Local linear attention against weighted least squares, query by query."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, make, tokens

from manymax.attention.dense.local_linear import conjugate_gradient

NAME = "local-linear-attention"


def by_least_squares(query, key, value, scale, ridge):
    """The intercept of argmin sum w |v - b - M (k - q)|^2 + ridge |M|^2, by stacking the ridge as rows."""
    outs = torch.zeros_like(query)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in query.shape[:3])):
        q, k, v = query[b, h, i], key[b, h, : i + 1], value[b, h, : i + 1]
        root = (scale * k @ q).exp().sqrt()[:, None]
        design = root * torch.cat([torch.ones(len(k), 1, dtype=k.dtype), k - q], 1)
        penalty = ridge**0.5 * torch.eye(DIM + 1, dtype=k.dtype)[1:]
        right = torch.cat([root * v, torch.zeros(DIM, v.shape[1], dtype=v.dtype)])
        outs[b, h, i] = torch.linalg.lstsq(torch.cat([design, penalty]), right).solution[0]
    return outs


@pytest.mark.parametrize("options", [{}, {"solver": "exact"}, {"scale": 0.1, "ridge": 0.05, "block_size": 3}], ids=str)
def test_it_is_the_intercept_of_a_weighted_fit(options):
    query, key, value = tokens(7)
    module = make((NAME, options))
    ridge = module.log_ridge.detach().exp()[0]
    torch.testing.assert_close(ridge[0, 0].float(), torch.tensor(options.get("ridge", 1.0)))
    out = module(query, key, value, is_causal=True)
    expected = by_least_squares(query, key, value, options.get("scale", DIM**-0.5), ridge)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)


def test_a_large_ridge_is_softmax_attention():
    query, key, value = tokens(40)
    out = make((NAME, {"ridge": 1e12}))(query, key, value, is_causal=True)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)


def test_no_scale_is_ridge_regression_on_all_keys():
    query, key, value = tokens(40)
    out = make((NAME, {"scale": 0.0, "ridge": 2.0}))(query, key, value)
    mean_key, mean_value = key.mean(2, keepdim=True), value.mean(2, keepdim=True)
    centred = key - mean_key
    system = centred.transpose(2, 3) @ centred + 2 * torch.eye(DIM, dtype=torch.float64)
    # The ridge holds the slope and not the value at the query: an intercept at the mean costs (mean - q) · slope.
    for i in (0, 13):
        q = query[:, :, i : i + 1]
        apart = key - q
        gram = apart.transpose(2, 3) @ apart + 2 * torch.eye(DIM, dtype=torch.float64)
        gap = mean_key - q
        system = gram - 40 * gap.transpose(2, 3) @ gap
        slope = torch.linalg.solve(system, centred.transpose(2, 3) @ (value - mean_value))
        torch.testing.assert_close(out[:, :, i : i + 1], mean_value - gap @ slope, rtol=0, atol=1e-9)


def test_values_that_are_linear_in_keys_are_continued_as_they_are():
    query, key, _ = tokens(30)
    slope, offset = torch.randn(DIM, DIM, dtype=torch.float64), torch.randn(DIM, dtype=torch.float64)
    value = key @ slope + offset
    query = 2 * query  # beyond the keys
    out = make((NAME, {"ridge": 1e-10, "solver": "exact"}))(query, key, value)
    torch.testing.assert_close(out, query @ slope + offset, rtol=0, atol=1e-5)


def test_conjugate_gradients_and_a_direct_solve_have_the_same_gradients():
    gradients = []
    for options in ({"ridge": 0.1}, {"ridge": 0.1, "solver": "exact"}, {"ridge": 0.1, "block_size": 2}):
        module, inputs = make((NAME, options)), [x.requires_grad_() for x in tokens(9)]
        weights = torch.randn(2, HEADS, 9, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        loss = (module(*inputs, is_causal=True) * weights).sum()
        gradients.append(torch.autograd.grad(loss, [*inputs, module.log_ridge]))
    for found in gradients[:2]:
        for grad, want in zip(found, gradients[2], strict=True):
            assert want.norm() > 1e-3
            torch.testing.assert_close(grad, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [20.0, 2000.0])
def test_large_scores_stay_finite(size):
    query, key, value = (x.float().requires_grad_() for x in tokens(12))
    module = make((NAME, {})).float()
    for sign in (1, -1):
        out = module(sign * size * query.abs(), size * key.abs(), value, is_causal=True)
        assert out.isfinite().all()
        assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), [query, key, value]))


def test_few_iterations_are_few():
    calls = []

    def apply(x):
        calls.append(1)
        return x * torch.arange(1.0, 9)

    right = torch.ones(3, 8)
    assert (apply(conjugate_gradient(apply, right, 50)) - right).norm() < 1e-4
    calls.clear()
    conjugate_gradient(apply, right, 2)
    assert len(calls) == 2


def test_wrong_options():
    for options, words in [
        ({"ridge": 0.0}, "ridge: expected a positive number"),
        ({"solver": "cgs"}, "solver: expected one of cg, exact, got 'cgs'"),
        ({"block_size": 0}, "^block_size: expected at least 1, got 0"),
        ({"iterations": 0}, "iterations: expected at least 1, got 0"),
        ({"key_block_size": 0}, "key_block_size: expected at least 1, got 0"),
        ({"key_block_size": 4, "solver": "exact"}, "key_block_size: expected None beside solver='exact'"),
    ]:
        with pytest.raises(ValueError, match=words):
            make((NAME, options))
