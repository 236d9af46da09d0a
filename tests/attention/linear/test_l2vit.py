"""L2ViT's attention against its formula, and its module of convolutions."""

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, HEADS, make, tokens

EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("least", [100.0, 10.0, 0.0])
def test_the_output_is_that_of_the_weights(least, causal):
    module, (query, key, value) = make(("l2vit", {"least": least})), tokens(20)
    assert torch.equal(module.temperature.detach(), torch.full((HEADS, 1, 1), DIM**-0.5).double())
    with torch.no_grad():
        module.temperature.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0])[:, None, None])
    products = query.clamp(min=0) @ key.clamp(min=0).transpose(2, 3)
    products = products.tril() if causal else products
    sums = products.sum(-1, keepdim=True)
    assert (sums < 10).any()
    assert (sums > 10).any()
    expected = module.temperature * (products @ value) / sums.clamp(min=max(least, 1e-30))
    torch.testing.assert_close(module(query, key, value, is_causal=causal), expected, **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_the_module_of_convolutions(training):
    module, whole = make(("l2vit", {"local": 3})), tokens(12)
    part, grid = module.concentrate, (3, 4)
    for norm in (part.layer_norm, part.batch_norm):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    part.batch_norm.running_mean.normal_()
    module.train(training)
    x = make(("l2vit", {}))(*whole)
    inner = F.layer_norm(x.transpose(1, 2).flatten(2), (24,), part.layer_norm.weight, part.layer_norm.bias)
    inner = F.gelu(part.first(inner.unflatten(2, (HEADS, DIM)).transpose(1, 2), grid)).transpose(1, 2).flatten(2)
    mean, variance = part.batch_norm.running_mean, part.batch_norm.running_var
    if training:
        mean, variance = inner.mean((0, 1)), inner.var((0, 1), correction=0)
    inner = (inner - mean) / (variance + 1e-5).sqrt() * part.batch_norm.weight + part.batch_norm.bias
    expected = x + part.second(inner.unflatten(2, (HEADS, DIM)).transpose(1, 2), grid)
    torch.testing.assert_close(module(*whole, grid=grid), expected, **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_padding_takes_no_part_in_the_module(training):
    module = make(("l2vit", {"local": 5})).train(training)
    query, key, value = tokens(9)
    keep = torch.arange(9) < 6
    expected = module(*(x[:, :, :6] for x in (query, key, value)))
    module = make(("l2vit", {"local": 5})).train(training)
    for x in (query, key, value):
        x[:, :, 6:] = torch.nan
    out = module(query, key, value, attn_mask=keep[None, None, None])
    torch.testing.assert_close(out[:, :, :6], expected, **EXACT)
    assert (out[:, :, 6:] == 0).all()


def test_the_module_sees_later_tokens():
    module, whole = make(("l2vit", {"local": 3})), tokens(5)
    with pytest.raises(ValueError, match="local: expected 0 in the causal form"):
        module(*whole, is_causal=True)
    with pytest.raises(ValueError, match="local: expected 0 in the causal form"):
        module.prefill(*whole)


def test_wrong_options():
    with pytest.raises(ValueError, match="least: expected at least 0, got -1"):
        make(("l2vit", {"least": -1.0}))
    query, key, value = tokens(6)
    with pytest.raises(ValueError, match=f"value: expected a last dim of {DIM}, as value_dim says, got {DIM - 1}"):
        make(("l2vit", {"local": 3}))(query, key, value[..., 1:])
    with pytest.raises(ValueError, match="local: expected an odd number"):
        make(("l2vit", {"local": 4}))
