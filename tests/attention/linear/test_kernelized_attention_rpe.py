"""Kernelized attention with relative positions against all pairs, and its FFT."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, make, tokens

from manymax.attention.linear import kernelized_attention_rpe, toeplitz

EXACT = {"rtol": 0, "atol": 1e-10}


def built(options):
    module = make(("kernelized-attention-rpe", options))
    torch.manual_seed(0)
    if module.bias is not None:
        torch.nn.init.normal_(module.bias)
    return module


def pairs(module, query, key, value, *, normalize, window, causal=False):
    """The definition: features by the formula, one weight for each pair."""

    def features(x):
        x = x / x.norm(dim=-1, keepdim=True) if normalize else x / DIM**0.25
        w = module.projection
        return (-x.square().sum(-1, keepdim=True) / 2).exp() / len(w) ** 0.5 * torch.exp(x @ w.T)

    n, m = query.shape[2], key.shape[2]
    weights = features(query) @ features(key).transpose(2, 3)
    for i in range(n):
        for j in range(m):
            if causal and j > i:
                weights[:, :, i, j] = 0
            elif module.bias is not None:
                weights[:, :, i, j] *= module.bias[:, max(-window, min(window, j - i)) + window].exp()
    return weights @ value / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("window", [3, 40])
@pytest.mark.parametrize("leaf", [2, 8, 512])
def test_the_output_is_that_of_all_pairs(normalize, window, causal, leaf, monkeypatch):
    monkeypatch.setattr(toeplitz, "LEAF", leaf)  # by FFT, by windows if they are at most 8, and by pairs
    monkeypatch.setattr(kernelized_attention_rpe, "LEAF", leaf)
    monkeypatch.setattr(toeplitz, "NUMBERS", 2000)  # and features go in parts
    options = {"max_distance": window, "num_features": 9, "normalize": normalize}
    module, whole = built(options), tokens(21)
    expected = pairs(module, *whole, normalize=normalize, window=window, causal=causal)
    torch.testing.assert_close(module(*whole, is_causal=causal), expected, rtol=0, atol=1e-7)  # the norm has a 1e-6


@pytest.mark.parametrize(("queries", "keys"), [(5, 12), (12, 5), (1, 7), (7, 1)])
@pytest.mark.parametrize("leaf", [2, 512])
def test_other_numbers_of_queries_than_keys(queries, keys, leaf, monkeypatch):
    monkeypatch.setattr(kernelized_attention_rpe, "LEAF", leaf)
    module, (query, key, value) = built({"max_distance": 4}), tokens(12)
    query, key, value = query[:, :, :queries], key[:, :, :keys], value[:, :, :keys]
    expected = pairs(module, query, key, value, normalize=True, window=4)
    torch.testing.assert_close(module(query, key, value), expected, rtol=0, atol=1e-7)


def test_without_distances_it_is_a_plain_sum():
    module, whole = built({"rpe": False, "orthogonal": False}), tokens(9)
    for causal in (False, True):
        expected = pairs(module, *whole, normalize=True, window=0, causal=causal)
        torch.testing.assert_close(module(*whole, is_causal=causal), expected, rtol=0, atol=1e-7)
    assert module.prefill(*whole)[1].keys.shape[2] == 0


@pytest.mark.parametrize("n", [64, 65, 200, 257])
def test_halving_is_the_sum_over_earlier_tokens(n, monkeypatch):
    monkeypatch.setattr(toeplitz, "LEAF", 64)
    torch.manual_seed(0)
    q, k = torch.rand(2, 2, HEADS, n, 5, dtype=torch.float64).unbind()
    v = torch.randn(2, HEADS, n, 3, dtype=torch.float64)
    weights = torch.rand(HEADS, n, dtype=torch.float64)
    distance = torch.arange(n)[:, None] - torch.arange(n)
    matrix = torch.where(distance >= 0, weights[:, distance.clamp(min=0)], 0)
    expected = (q @ k.transpose(2, 3) * matrix) @ v
    torch.testing.assert_close(toeplitz.between_causal(q, k, v, weights), expected, **EXACT)


def test_no_rounding_of_the_transform_reaches_an_earlier_output(monkeypatch):
    monkeypatch.setattr(toeplitz, "LEAF", 64)
    monkeypatch.setattr(kernelized_attention_rpe, "LEAF", 64)
    module, whole = built({"max_distance": 300}), [x.requires_grad_() for x in tokens(300, batch=1)]
    out = module(*whole, is_causal=True)
    for place in (64, 150, 256):
        for grad in torch.autograd.grad(out[:, :, place].sum(), whole, retain_graph=True):
            assert (grad[:, :, place + 1 :] == 0).all()
            assert (grad[:, :, : place + 1] != 0).any()


def test_float32_is_close_to_float64_at_length():
    module, low = built({"max_distance": 200}), tokens(1000, batch=1, dtype=torch.float32)
    for causal in (False, True):
        wide = module.double()(*(x.double() for x in low), is_causal=causal)
        error = (module.float()(*low, is_causal=causal) - wide).abs().max()
        assert error < 1e-4 * wide.abs().max()


def test_a_long_sequence_goes_on_from_a_window(monkeypatch):
    monkeypatch.setattr(toeplitz, "LEAF", 64)
    monkeypatch.setattr(kernelized_attention_rpe, "LEAF", 64)
    module, whole = built({"max_distance": 30}), tokens(200)
    expected = module(*whole, is_causal=True)
    first, state = module.prefill(*(x[:, :, :90] for x in whole))
    second, state = module.step(*(x[:, :, 90:170] for x in whole), state)
    third, state = module.step(*(x[:, :, 170:] for x in whole), state)
    torch.testing.assert_close(torch.cat([first, second, third], 2), expected, **EXACT)
    assert state.keys.shape[2] == 30


@pytest.mark.parametrize("leaf", [2, 8, 512])
def test_holes_in_a_sequence_are_no_distance(leaf, monkeypatch):
    monkeypatch.setattr(toeplitz, "LEAF", leaf)
    monkeypatch.setattr(kernelized_attention_rpe, "LEAF", leaf)
    module, whole = built({"max_distance": 4}), tokens(12)
    keep = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1], dtype=torch.bool)
    for causal in (False, True):
        alone = module(*(x[:, :, keep] for x in whole), is_causal=causal)
        out = module(*whole, attn_mask=keep[None], is_causal=causal)
        torch.testing.assert_close(out[:, :, keep], alone, **EXACT)
    _, state = module.prefill(*whole, attn_mask=keep[None])
    _, expected = module.prefill(*(x[:, :, keep] for x in whole))
    for x, y in zip(state.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(x, y, **EXACT)


def test_rows_are_orthogonal_or_not():
    for orthogonal in (True, False):
        rows = make(("kernelized-attention-rpe", {"orthogonal": orthogonal})).projection
        products = rows @ rows.T - torch.diag(rows.square().sum(1))
        assert (products.abs().max() < 1e-5) == orthogonal


def test_wrong_options():
    for name in ("num_features", "max_distance"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            make(("kernelized-attention-rpe", {name: 0}))
