"""Regression at test time against direct solves, token by token."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, make, tokens
from torch.nn.functional import normalize

NAME = "test-time-regression"
EXACT = {"rtol": 0, "atol": 1e-8}


def each_token(query, value):
    return torch.cartesian_prod(*(torch.arange(n) for n in (*query.shape[:2], value.shape[2])))


def forgetting(module, value):
    """a_t of each token, (B, H, N)."""
    if module.forget is None:
        return torch.ones(value.shape[:3], dtype=torch.float64)
    return torch.sigmoid(value @ module.forget.weight + module.forget.bias).detach()[..., 0]


@pytest.mark.parametrize("form", ["chunked", "woodbury"])
@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_exact_solver_is_weighted_ridge_regression(form, forget, qk_norm):
    module = make((NAME, {"form": form, "forgetting": forget, "ridge": 0.1, "qk_norm": qk_norm}))
    query, key, value = tokens(35)
    out = module(query, key, value, is_causal=True)
    if qk_norm:
        query, key = normalize(query, dim=-1), normalize(key, dim=-1)
    decay, ridge = forgetting(module, value), module.log_ridge.detach().exp()[0]
    for b, h, t in each_token(query, value):
        weight = torch.stack([decay[b, h, i + 1 : t + 1].prod() for i in range(t + 1)])
        k, v = key[b, h, : t + 1], value[b, h, : t + 1]
        faded = ridge * decay[b, h, : t + 1].prod() * torch.eye(DIM, dtype=torch.float64)
        best = torch.linalg.solve((weight[:, None] * k).T @ k + faded, (weight[:, None] * k).T @ v)
        torch.testing.assert_close(out[b, h, t], query[b, h, t] @ best, **EXACT)


def test_all_tokens_at_once_are_one_regression():
    query, key, value = tokens(20)
    module = make((NAME, {"ridge": 0.5}))
    last = module(query, key, value, is_causal=True)[:, :, -1]
    torch.testing.assert_close(module(query[:, :, -1:], key, value)[:, :, 0], last, **EXACT)


@pytest.mark.parametrize("implicit", [False, True])
def test_gradient_steps_are_the_delta_rule(implicit):
    options = {"solver": "gradient", "forgetting": True, "implicit": implicit, "qk_norm": False}
    module, (query, key, value) = make((NAME, options)), tokens(12)
    key = 0.5 * key
    out = module(query, key, value, is_causal=True)
    decay = forgetting(module, value)
    rate = torch.sigmoid(value @ module.rate.weight + module.rate.bias).detach()[..., 0]
    for b, h in torch.cartesian_prod(torch.arange(2), torch.arange(HEADS)):
        best = torch.zeros(DIM, DIM, dtype=torch.float64, requires_grad=True)
        for t in range(12):
            k, v, step = key[b, h, t], value[b, h, t], rate[b, h, t]
            faded = decay[b, h, t] * best
            if implicit:  # the minimum of |M - faded|^2 + step |v - M k|^2
                system = torch.eye(DIM, dtype=torch.float64) + step * torch.outer(k, k)
                best = torch.linalg.solve(system, (faded + step * torch.outer(v, k)).T).T
            else:  # a step down the gradient of 1/2 |v - M k|^2
                faded = faded.detach().requires_grad_()
                best = faded - step * torch.autograd.grad(0.5 * (v - faded @ k).square().sum(), faded)[0]
            torch.testing.assert_close(out[b, h, t], (best @ query[b, h, t]).detach(), **EXACT)


def test_without_covariance_it_is_linear_attention_and_exact_if_keys_are_orthonormal():
    query, _, value = tokens(DIM)
    key = torch.linalg.qr(torch.randn(2, HEADS, DIM, DIM, dtype=torch.float64))[0]
    unit = normalize(query, dim=-1)
    expected = (unit @ key.transpose(2, 3)).tril() @ value
    for options in ({"solver": "no-covariance"}, {"ridge": 1e-10}):
        out = make((NAME, options))(query, key, value, is_causal=True)
        torch.testing.assert_close(out[:, :, -1], expected[:, :, -1], **EXACT)


def test_correlated_keys_are_where_covariance_matters():
    torch.manual_seed(0)
    key = torch.randn(2, HEADS, 200, DIM, dtype=torch.float64) * 10.0 ** -torch.linspace(0, 1, DIM)
    slope = torch.randn(DIM, DIM, dtype=torch.float64)
    query, value = torch.randn_like(key), key @ slope
    errors = [
        (make((NAME, {**options, "qk_norm": False}))(query, key, value) - query @ slope).square().mean()
        for options in ({"ridge": 1e-9}, {"solver": "no-covariance"})
    ]
    assert errors[0] < 1e-9 * errors[1]


def test_a_local_constant_is_softmax_attention():
    query, key, value = tokens(20)
    attend = torch.nn.functional.scaled_dot_product_attention
    out = make((NAME, {"solver": "local-constant", "qk_norm": False}))(query, key, value, is_causal=True)
    torch.testing.assert_close(out, attend(query, key, value, is_causal=True), **EXACT)
    module = make((NAME, {"solver": "local-constant"}))
    unit = (normalize(query, dim=-1), normalize(key, dim=-1), value)
    expected = attend(*unit, is_causal=True, scale=float(module.log_scale.detach().exp()[0]))
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, **EXACT)


def test_a_local_line_is_local_linear_attention():
    query, key, value = tokens(20)
    expected = make(("local-linear-attention", {"ridge": 0.2}))(query, key, value, is_causal=True)
    out = make((NAME, {"solver": "local-linear", "qk_norm": False, "ridge": 0.2}))(query, key, value, is_causal=True)
    torch.testing.assert_close(out, expected, **EXACT)


def test_shifted_keys_pair_each_value_with_the_key_before():
    query, key, value = tokens(9)
    module = make((NAME, {"solver": "no-covariance", "shift_keys": 2, "qk_norm": False}))
    before = torch.cat([torch.zeros_like(key[:, :, :1]), key[:, :, :-1]], 2)
    expected = (query @ before.transpose(2, 3)).tril() @ value
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, **EXACT)
    assert module.shift.weight.requires_grad


def test_wrong_options():
    for options, words in [
        ({"solver": "exakt"}, "solver: expected one of .*did you mean 'exact'"),
        ({"form": "w"}, "form: expected one of chunked, woodbury, got 'w'"),
        ({"ridge": -1.0}, "ridge: expected a positive number"),
        ({"solver": "local-constant", "forgetting": True}, "forgetting: expected False beside solver='local-constant'"),
    ]:
        with pytest.raises(ValueError, match=words):
            make((NAME, options))
