"""MALA against its weights, pair by pair."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, HEADS, make, tokens

from manymax.attention.linear.grid import turn

EXACT = {"rtol": 0, "atol": 1e-10}
CORE = {"rope": False, "local": 0, "gate": False}


def weights(query, key, *, mean, causal):
    """The weights of one query at a time, as the paper and as the authors' code write them."""
    q, k = F.elu(query) + 1, F.elu(key) + 1
    rows = []
    for i in range(q.shape[2]):
        seen = k[:, :, : i + 1] if causal else k
        products = (q[:, :, i, None] * seen).sum(-1)
        count = seen.shape[2]
        if mean:
            z = products.mean(-1, keepdim=True) * DIM**-0.5
            row = (1 + 1 / z) * products * DIM**-0.5 / count - z / count
        else:
            total = products.sum(-1, keepdim=True)
            row = (1 + 1 / total) * products - total / count
        rows.append(F.pad(row, (0, k.shape[2] - count)))
    return torch.stack(rows, 2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_the_output_is_that_of_the_weights_which_sum_to_one(mean, causal):
    query, key, value = tokens(9)
    rows = weights(query, key, mean=mean, causal=causal)
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), **EXACT)
    out = make(("mala", {**CORE, "mean": mean}))(query, key, value, is_causal=causal)
    torch.testing.assert_close(out, rows @ value, **EXACT)


def test_all_parts_together_on_a_grid():
    module, (query, key, value) = make(("mala", {})), tokens(12)
    grid = (3, 4)
    q, k = F.elu(query) + 1, F.elu(key) + 1
    z = (q @ k.mean(2)[..., None]) * DIM**-0.5
    angle = torch.ones(1, dtype=torch.float64), torch.tensor([1.0, 1e-4], dtype=torch.float64)  # 1 pair and 2 pairs

    def turned(x):
        out = x.clone()
        for t in range(12):
            angles = torch.cat([angle[0] * (t // 4), angle[1] * (t % 4)])
            for p, a in enumerate(angles):
                left, right = x[:, :, t, 2 * p], x[:, :, t, 2 * p + 1]
                out[:, :, t, 2 * p] = left * a.cos() - right * a.sin()
                out[:, :, t, 2 * p + 1] = left * a.sin() + right * a.cos()
        return out

    products = turned(q) @ turned(k).transpose(2, 3) * DIM**-0.5 / 12
    mixed = (1 + 1 / z) * products @ value - z * value.mean(2, keepdim=True)
    gate = value @ module.gate.weight + module.gate.bias
    expected = (mixed + module.local(value, grid)) * gate
    torch.testing.assert_close(module(query, key, value, grid=grid), expected, **EXACT)


def test_large_queries_give_uneven_weights():
    query, key, _ = tokens(20)
    spread = [weights(c * query, key, mean=True, causal=False).std(-1).mean() for c in (1, 2, 4, 8, 16)]
    assert all(a < b for a, b in pairwise(spread))
    eye = torch.eye(20, dtype=torch.float64).expand(2, HEADS, 20, 20)
    ours = make(("mala", {**CORE, "value_dim": 20}))(8 * query, key, eye)
    torch.testing.assert_close(ours, weights(8 * query, key, mean=True, causal=False), **EXACT)


def test_features_that_vanish_give_zeros():
    query, key, value = tokens(5)
    query[:, :, 2] = -1e4
    query.requires_grad_()
    out = make(("mala", CORE))(query, key, value)
    assert (out[:, :, 2] == 0).all()
    assert torch.autograd.grad(out.sum(), query)[0].isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
def test_a_sequence_turns_by_the_place(causal):
    query, key, value = tokens(7)
    q, k = F.elu(query) + 1, F.elu(key) + 1
    where = torch.arange(7)[None, :, None]
    products = turn(q, where) @ turn(k, where).transpose(2, 3) * DIM**-0.5
    plain = q @ k.transpose(2, 3) * DIM**-0.5
    seen = torch.ones(7, 7, dtype=torch.float64)
    seen = seen.tril() if causal else seen
    count = seen.sum(1, keepdim=True)
    z = (plain * seen).sum(-1, keepdim=True) / count
    expected = ((1 + 1 / z) * products * seen / count - z * seen / count) @ value
    module = make(("mala", {"local": 0, "gate": False}))
    torch.testing.assert_close(module(query, key, value, is_causal=causal), expected, **EXACT)


def test_turning_matters_to_the_causal_form_too():
    whole = tokens(6)
    turned, plain = (make(("mala", {**CORE, "rope": rope}))(*whole, is_causal=True) for rope in (True, False))
    torch.testing.assert_close(turned[:, :, 0], plain[:, :, 0], **EXACT)  # a token is at no distance from itself
    assert (turned - plain)[:, :, 1:].abs().max() > 1e-3
