"""Mechanisms in the place of attention: the same with and without a cache, padding left out, projections kept."""

import pytest
import torch
from hf_cases import build, tokens

from manymax.integrations.transformers import replace_attention
from manymax.integrations.transformers.cache import StateLayer
from manymax.integrations.transformers.replace import MechanismAttention


def replaced(name="gated-delta", family="llama", implementation="manymax", **options):
    model = build(family, implementation)
    torch.manual_seed(3)
    replace_attention(model, name, **options)
    return model.eval()


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
@pytest.mark.parametrize(("name", "layers"), [("gated-delta", None), ("linear", [0]), ("retention", [-1])])
def test_generation_with_a_cache_is_generation_without(family, name, layers):
    model = replaced(name, family, layers=layers)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    cached = model.generate(tokens(), **options)
    assert torch.equal(cached, model.generate(tokens(), use_cache=False, **options))


@pytest.mark.parametrize("implementation", ["manymax", "eager", "sdpa"])
@pytest.mark.parametrize("name", ["gated-delta", "linear"])
def test_padding_on_the_left_takes_no_part(implementation, name):
    model = replaced(name, implementation=implementation)
    ids = tokens(batch=1, length=8)
    alone = model(input_ids=ids).logits
    padded = torch.cat([torch.full((1, 3), 9), ids], 1)
    mask = torch.tensor([[0] * 3 + [1] * 8])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = model(input_ids=padded, attention_mask=mask, position_ids=positions).logits[:, 3:]
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(input_ids=padded).logits[:, 3:], alone, atol=1e-3)


def test_a_batch_generates_what_its_sequences_do_alone():
    model = replaced(layers=[0])
    ids = tokens(batch=2, length=8)
    ids[0, :3] = 0
    mask = (ids != 0).long()
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    both = model.generate(ids, attention_mask=mask, **options)
    assert torch.equal(both[0, 8:], model.generate(ids[:1, 3:], **options)[0, 5:])
    assert torch.equal(both[1, 8:], model.generate(ids[1:], **options)[0, 8:])


def test_beams_follow_the_state():
    model = replaced()
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 3, "do_sample": False}
    assert torch.equal(model.generate(tokens(), **options), model.generate(tokens(), use_cache=False, **options))


def test_the_state_lies_in_the_models_cache_and_does_not_grow():
    model = replaced(layers=[0])
    outputs = model(input_ids=tokens(), use_cache=True)
    cache = outputs.past_key_values
    assert isinstance(cache.layers[0], StateLayer)
    assert not isinstance(cache.layers[1], StateLayer)
    held = cache.layers[0].state.nbytes
    model(input_ids=tokens(length=5), past_key_values=cache)
    assert cache.layers[0].state.nbytes == held
    assert cache.get_seq_length() == cache.layers[1].get_seq_length() == 17
    cache.layers[0].reset()
    assert cache.get_seq_length() == 0


def test_projections_are_kept_and_everything_learns():
    model = build("qwen3")
    kept = dict(model.named_parameters())
    names = replace_attention(model, "gated-delta", layers=[1])
    assert names == ["model.layers.1.self_attn"]
    assert isinstance(model.model.layers[1].self_attn, MechanismAttention)
    now = dict(model.named_parameters())
    assert all(now[name] is parameter for name, parameter in kept.items())
    assert len(now) > len(kept)
    ids = tokens()
    model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert all(parameter.grad is not None for parameter in now.values())


def test_positions_turn_queries_and_keys_where_asked():
    ids = tokens()
    plain, turned = (replaced("gated-delta", rotary=rotary)(input_ids=ids).logits for rotary in (False, True))
    assert not torch.allclose(plain, turned, atol=1e-3)
    torch.testing.assert_close(replaced("gated-delta")(input_ids=ids).logits, plain)
    torch.testing.assert_close(
        replaced("linear")(input_ids=ids).logits, replaced("linear", rotary=True)(input_ids=ids).logits
    )


def test_later_tokens_change_nothing_before_them():
    model = replaced()
    ids = tokens()
    before = model(input_ids=ids).logits
    ids[:, -1] = 5
    torch.testing.assert_close(model(input_ids=ids).logits[:, :-1], before[:, :-1])


def test_weights_load_into_a_model_treated_alike():
    model = replaced()
    other = build("llama")
    replace_attention(other, "gated-delta")
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(input_ids=tokens()).logits, model(input_ids=tokens()).logits)


def test_what_cannot_be_replaced_is_refused():
    with pytest.raises(ValueError, match="name: expected a mechanism with a state and a causal form, got 'sigmoid'"):
        replace_attention(build("llama"), "sigmoid")
    with pytest.raises(ValueError, match="layers: expected numbers of 2 layers, got 2"):
        replace_attention(build("llama"), "linear", layers=[2])
    with pytest.raises(ValueError, match="GptOssAttention also learns sinks"):
        replace_attention(build("gpt_oss"), "linear")
    with pytest.raises(ValueError, match="model: expected attention with q_proj"):
        replace_attention(build("bert"), "linear")


def test_what_a_state_cannot_do_is_refused():
    from transformers import StaticCache

    model = replaced()
    with pytest.raises(ValueError, match="output_attentions: GatedDelta"):
        model(input_ids=tokens(), output_attentions=True)
    cache = StaticCache(config=model.config, max_cache_len=32)
    with pytest.raises(ValueError, match="past_key_values: expected an empty dynamic cache, got Static"):
        model(input_ids=tokens(), past_key_values=cache)
    with pytest.raises(ValueError, match="cannot forget"):
        StateLayer().crop(3)
    cache = model(input_ids=tokens(), use_cache=True).past_key_values
    mask = torch.ones(2, 16)
    mask[0, 13] = 0
    with pytest.raises(ValueError, match="attention_mask: expected padding in the first tokens alone"):
        model(input_ids=tokens(length=4), past_key_values=cache, attention_mask=mask)
