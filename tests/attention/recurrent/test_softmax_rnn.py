"""Softmax as a recurrent network: Taylor terms, denominators and norms against their formulas over pairs."""

import math

import pytest
import torch
from mechanism_cases import DIM, HEADS, largest_held, make, tokens

from manymax.attention.recurrent import pair_sums
from manymax.attention.recurrent.softmax_rnn import kronecker_features, truncated_exp

NAME = "softmax-rnn"
EXACT = {"rtol": 0, "atol": 1e-11}


def weights(query, key, weigh):
    scores = query @ key.transpose(2, 3) / DIM**0.5
    return weigh(scores) * torch.ones(scores.shape[2:], dtype=torch.float64).tril()


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_products_of_features_are_taylor_terms(order):
    query, key, _ = tokens(5)
    found = kronecker_features(query, order) @ kronecker_features(key, order).transpose(2, 3)
    scores = query @ key.transpose(2, 3) / DIM**0.5
    expected = sum(scores**n / math.factorial(n) for n in range(order + 1))
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(truncated_exp(scores, order), expected, **EXACT)


def test_many_terms_are_softmax():
    query, key, value = tokens(30)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    for options in ({}, {"order": 40}):
        torch.testing.assert_close(make((NAME, options))(query, key, value, is_causal=True), expected, **EXACT)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("denominator", ["sum", "clamp", "detach", "count", "none"])
def test_the_recurrence_is_the_sum_over_pairs(order, denominator):
    query, key, value = tokens(21)
    weight = weights(query, key, lambda s: truncated_exp(s, order))
    total = weight.sum(-1, keepdim=True)
    count = torch.arange(1, 22, dtype=torch.float64)[:, None]
    by = {"sum": total, "count": count, "none": torch.ones(1)}.get(denominator, total.clamp(min=1))
    out = make((NAME, {"order": order, "denominator": denominator}))(query, key, value, is_causal=True)
    torch.testing.assert_close(out, weight @ value / by, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output", ["none", "gate", "rms", "l2", "layer"])
def test_what_stands_for_the_denominator(output):
    module, (query, key, value) = make((NAME, {"denominator": "count", "output": output})), tokens(8)
    weight = weights(5 * query, key, lambda s: s.clamp(max=5).exp())
    assert (weight == math.exp(5)).any()
    mean = weight @ value / torch.arange(1, 9)[:, None]
    expected = {
        "none": lambda: mean,
        "gate": lambda: mean * torch.sigmoid(value @ module.gate.weight + module.gate.bias),
        "rms": lambda: mean / (mean.square().mean(-1, keepdim=True) + 1e-5).sqrt(),
        "l2": lambda: mean / mean.norm(dim=-1, keepdim=True),
        "layer": lambda: torch.nn.functional.layer_norm(mean, (DIM,)),
    }[output]()
    torch.testing.assert_close(module(5 * query, key, value, is_causal=True), expected, rtol=0, atol=1e-8)


def test_a_ceiling_is_a_choice():
    query, key, value = tokens(8)
    free = make((NAME, {"denominator": "none", "ceiling": None}))(9 * query, key, value, is_causal=True)
    torch.testing.assert_close(free, weights(9 * query, key, torch.exp) @ value, rtol=1e-10, atol=0)


def test_a_detached_denominator_has_no_gradient():
    query, key, value = (x.requires_grad_() for x in tokens(6))
    module = make((NAME, {"denominator": "detach", "ceiling": None}))
    found = torch.autograd.grad(module(query, key, value, is_causal=True).sum(), key)[0]
    weight = weights(query, key, torch.exp)
    total = weight.sum(-1, keepdim=True).clamp(min=1).detach()
    torch.testing.assert_close(found, torch.autograd.grad((weight @ value / total).sum(), key)[0], **EXACT)


def test_low_orders_have_a_state_of_constant_size():
    for order, features in ((1, 1 + DIM), (2, 1 + DIM + DIM**2)):
        module = make((NAME, {"order": order}))
        states = [module.prefill(*tokens(count))[1] for count in (1, 50)]
        assert states[0].nbytes == states[1].nbytes
        assert states[1].memory.shape == (2, HEADS, features, DIM + 1)
    assert make((NAME, {"order": 3})).prefill(*tokens(50))[1].key.shape[2] == 50


def in_tiles(monkeypatch, rows, scores):
    """Cut all pairs into tiles, whatever their number."""
    for name, number in {"ROWS": rows, "TILE": scores, "WHOLE": 0}.items():
        monkeypatch.setattr(pair_sums, name, number)


TILED = [{"denominator": "clamp"}, {"denominator": "count", "ceiling": None}, {"order": 4}]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("options", TILED)
def test_tiles_change_no_result(monkeypatch, options, is_causal):
    module, whole = make((NAME, options)), [x.requires_grad_() for x in tokens(23)]
    keep = torch.arange(23) >= torch.tensor([[0], [9]])

    def outputs():
        if not is_causal:
            return module(*whole, attn_mask=keep[:, None, None])
        first, state = module.prefill(*(x[:, :, :12] for x in whole), attn_mask=keep[:, None, None, :12])
        return torch.cat([first, module.step(*(x[:, :, 12:] for x in whole), state)[0]], 2)

    def grads(out):
        direction = torch.arange(out.numel()).reshape(out.shape).sin().double()
        return torch.autograd.grad((out * direction).sum(), whole)

    expected = outputs()
    wanted = grads(expected)
    assert all(x.norm() > 1e-3 for x in wanted)
    for rows, scores in ((5, 15), (1, 1), (7, 280)):
        in_tiles(monkeypatch, rows, scores)
        out = outputs()
        for mine, theirs in zip((out, *grads(out)), (expected, *wanted), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
        with torch.no_grad():
            torch.testing.assert_close(outputs(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", TILED)
def test_gradients_through_tiles_are_those_of_differences(monkeypatch, options):
    in_tiles(monkeypatch, 2, 4)
    module, whole = make((NAME, options)), [x.requires_grad_() for x in tokens(5, batch=1)]
    assert torch.autograd.gradcheck(lambda *x: module(*x, is_causal=True), whole, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *x: module(*x, is_causal=True), whole, fast_mode=True)


@pytest.mark.parametrize("options", [{}, *TILED])
def test_nothing_larger_than_inputs_and_a_tile_is_ever_held(monkeypatch, served, options):
    if not options and served("reference") != "cpu":
        pytest.skip("without the kernels a mask of up to 2^22 pairs is not worth tiles")
    count, more, rows, columns = 300, 50, 32, 48
    in_tiles(monkeypatch, rows, rows * columns)
    largest, _ = largest_held(make((NAME, options)).float(), count, more)
    assert largest == HEADS * max((count + more) * DIM, rows * columns)


@pytest.mark.parametrize("ceiling", [None, 500.0])
def test_what_a_query_does_not_see_is_not_in_its_gradient(ceiling):
    """Not even as 0 times the exponential of a score that leaves float32."""
    query, key, value = (x.float() for x in tokens(8))
    key[:, :, 5:] *= 1e4
    query[:, :, 5:] = 0  # those that see these keys
    whole = [x.requires_grad_() for x in (query, key, value)]
    out = make((NAME, {"denominator": "count", "ceiling": ceiling})).float()(*whole, is_causal=True)
    for grad in torch.autograd.grad(out[:, :, :5].sum(), whole):
        assert grad.isfinite().all()
        assert (grad[:, :, 5:] == 0).all()


def test_wrong_options():
    for options, words in [
        ({"order": -1}, "order: expected at least 0, got -1"),
        ({"denominator": "summ"}, "denominator: expected one of .* did you mean 'sum'"),
        ({"output": "l3"}, "output: expected one of .*got 'l3'"),
        ({"backend": "x"}, "backend: expected"),
        ({"backend": "chunked"}, "backend: expected 'auto' beside order=None, which is no recurrence, got 'chunked'"),
        ({"order": 3, "chunk_size": 8}, "chunk_size: expected None beside order=3"),
    ]:
        with pytest.raises(ValueError, match=words):
            make((NAME, options))
