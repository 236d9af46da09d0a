"""Mechanisms by name."""

import pytest
import torch

import manymax as mm


def test_every_map_is_a_mechanism():
    assert set(mm.list_maps()) <= set(mm.list_attentions())
    assert mm.list_attentions() == sorted(mm.list_attentions())


def test_names_are_filtered_by_a_pattern():
    assert mm.list_attentions("*relu") == ["linear-relu", "relu", "squared_relu"]
    assert mm.list_attentions("softmax?") == ["softmax1"]
    assert mm.list_attentions("Softmax") == []


@pytest.mark.parametrize("name", mm.list_maps())
def test_every_map_runs_with_the_plain_arguments(name):
    module = mm.create_attention(name, head_dim=8, num_heads=4)
    query, key, value = (torch.randn(2, 4, n, d) for n, d in ((5, 8), (7, 8), (7, 6)))
    assert module(query, key, value).shape == (2, 4, 5, 6)
    query, key, value = torch.randn(3, 2, 4, 6, 8).unbind()
    first = module(query, key, value, attn_mask=torch.rand(6, 6) > 0.2, is_causal=True)
    assert first.isfinite().all()
    assert first.shape == query.shape


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'sofmax'; did you mean 'softmax'\?"):
        mm.create_attention("sofmax", head_dim=8, num_heads=4)
