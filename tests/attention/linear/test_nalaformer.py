"""NaLaFormer against its formula, pair by pair."""

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import HEADS, make, tokens

from manymax.attention.linear.grid import places, turn

EXACT = {"rtol": 0, "atol": 1e-9}
CORE = {"rope": False, "local": 0, "gate": False}


def features(query, key, power):
    """Features by numpy-like steps: parts of direction and cube, elementwise powers."""
    norm = query.norm(dim=-1, keepdim=True)
    p = power * (0.5 + norm.tanh())
    q = [(part.clamp(min=0) / norm).pow(p) for part in (query, -query)]
    return torch.cat(q, -1), torch.cat([key.clamp(min=0) ** 3, (-key).clamp(min=0) ** 3], -1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("power", [3.0, 1.5])
def test_the_output_is_that_of_the_weights(power, causal):
    query, key, value = tokens(9)
    q, k = features(query, key, power)
    products = q @ k.transpose(2, 3)
    count = torch.full((9, 1), 9.0)
    if causal:
        products, count = products.tril(), torch.arange(1.0, 10)[:, None]
    expected = products @ value / (products.sum(-1, keepdim=True) + 1e-6 * count)
    out = make(("nalaformer", {**CORE, "power": power}))(query, key, value, is_causal=causal)
    torch.testing.assert_close(out, expected, **EXACT)


def test_all_parts_together_on_a_grid():
    module, (query, key, value) = make(("nalaformer", {})), tokens(12)
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    q, k = features(query, key, 3.0)
    spots = places((3, 4), q)
    products = turn(q, spots) @ turn(k, spots).transpose(2, 3)
    mixed = products @ value / ((q @ k.transpose(2, 3)).sum(-1, keepdim=True) + 12e-6)
    mixed = (mixed + module.local(value, (3, 4))).transpose(1, 2).flatten(2)
    normal = module.norm(mixed).unflatten(2, (HEADS, -1)).transpose(1, 2)
    expected = normal * F.silu(value @ module.gate.linear.weight)
    torch.testing.assert_close(module(query, key, value, grid=(3, 4)), expected, **EXACT)


def test_weights_of_longer_queries_are_less_even():
    query, key, _ = tokens(30)
    entropies = []
    for scale in (0.25, 0.5, 1, 2):
        q, k = features(scale * query, key, 3.0)
        rows = q @ k.transpose(2, 3)
        rows = rows / rows.sum(-1, keepdim=True)
        entropies.append(float(torch.special.entr(rows).sum(-1).mean()))
    assert entropies == sorted(entropies, reverse=True)


def test_a_query_of_zeros_gives_zeros():
    query, key, value = tokens(4)
    query[:, :, 1] = 0
    query.requires_grad_()
    out = make(("nalaformer", CORE))(query, key, value)
    assert (out[:, :, 1] == 0).all()
    assert torch.autograd.grad(out.sum(), query)[0].isfinite().all()


def test_a_power_of_zero():
    with pytest.raises(ValueError, match="power: expected a positive number, got 0"):
        make(("nalaformer", {"power": 0.0}))
