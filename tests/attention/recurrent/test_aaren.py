"""Aaren is softmax attention with one query for all tokens."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, make, tokens

from manymax.attention.recurrent.scan import FORMS

EXACT = {"rtol": 0, "atol": 1e-12}


def by_definition(module, key, value):
    """Softmax over a token's past, with the head's learnt query at every place."""
    query = module.query.detach()[None, :, :, 0, None].transpose(2, 3).expand(len(key), -1, key.shape[2], -1)
    scores = query @ key.transpose(2, 3) / DIM**0.5
    earlier = torch.ones(key.shape[2], key.shape[2]).tril() == 1
    return scores.masked_fill(~earlier, -torch.inf).softmax(-1) @ value


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_causal_softmax_with_a_repeated_query(form, scale):
    module, (query, key, value) = make(("aaren", {"form": form})), tokens(23)
    out = module(query, scale * key, value, is_causal=True)
    torch.testing.assert_close(out, by_definition(module, scale * key, value), **EXACT)
    last = module(query, scale * key, value)
    torch.testing.assert_close(last, out[:, :, -1:].expand_as(last), **EXACT)


def test_its_gradients_are_those_of_softmax():
    module, (query, key, value) = make(("aaren", {})), [x.requires_grad_() for x in tokens(9)]
    weights = torch.randn(2, HEADS, 9, DIM, dtype=torch.float64)
    found = torch.autograd.grad((module(query, key, value, is_causal=True) * weights).sum(), [key, value])
    expected = torch.autograd.grad((by_definition(module, key, value) * weights).sum(), [key, value])
    for grad, want in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, want, **EXACT)


def test_the_learnt_query_has_a_gradient_through_a_carried_state():
    module, whole = make(("aaren", {})), tokens(8)
    grads = []
    for split in (None, 3):
        if split is None:
            out = module(*whole, is_causal=True)
        else:
            first, state = module.prefill(*(x[:, :, :split] for x in whole))
            rest, _ = module.step(*(x[:, :, split:] for x in whole), state)
            out = torch.cat([first, rest], 2)
        grads.append(torch.autograd.grad(out.square().sum(), module.query)[0])
    assert grads[0].norm() > 0.1
    torch.testing.assert_close(*grads, **EXACT)


def test_padding_alone_is_a_state_of_no_tokens():
    _, state = make(("aaren", {})).prefill(*tokens(3), attn_mask=torch.zeros(1, 1, 1, 3, dtype=torch.bool))
    assert (state.total == 0).all()
    assert (state.weighted == 0).all()


def test_the_state_does_not_grow():
    module = make(("aaren", {}))
    sizes = [module.prefill(*tokens(count))[1].nbytes for count in (1, 16, 300)]
    assert sizes[0] == sizes[1] == sizes[2]
