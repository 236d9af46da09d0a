import pytest
import torch

import manymax as mm
from manymax.attention.mechanism import CausalMechanism
from manymax.attention.registry import MECHANISMS, mechanism_class
from manymax.models.gpt import GPT
from manymax.models.layers import Cache


@pytest.fixture
def model(awake):
    def make(**options):
        torch.manual_seed(0)
        return awake(GPT(17, **({"depth": 2, "width": 24, "num_heads": 4, "num_kv_heads": 2} | options)).double())

    return make


class Mean(torch.nn.Module):
    """The running mean of the values: a mechanism without a cache."""

    def __init__(self, head_dim, num_heads):
        super().__init__()
        self.groups = num_heads

    def forward(self, query, key, value, *, attn_mask=None, is_causal=False):
        counts = torch.arange(1, value.shape[2] + 1)[:, None]
        return (value.cumsum(2) / counts).repeat_interleave(self.groups // value.shape[1], 1)


CACHED = {name for name in mm.list_maps() if mm.create_map(name).kind != "coupled"} | {
    name for name in MECHANISMS if issubclass(mechanism_class(name), CausalMechanism)
}


class CountingMean(Mean):
    """The same with a state, counting its calls."""

    calls = 0

    def prefill(self, query, key, value):
        return self(query, key, value), (value.sum(2, keepdim=True), value.shape[2])

    def step(self, query, key, value, state):
        CountingMean.calls += 1
        total, count = state[0] + value, state[1] + 1
        return (total / count).repeat_interleave(self.groups // value.shape[1], 1), (total, count)


@pytest.mark.parametrize("attention", [*mm.list_attentions(), CountingMean])
def test_cached_features_equal_recomputed_ones(attention, model):
    if not isinstance(attention, str) or attention in CACHED:
        net = model(attention=attention)
        assert net.supports_cache
        tokens = torch.randint(17, (2, 9))
        cache = Cache()
        parts = [net.features(tokens[:, :4], cache)]
        parts += [net.features(tokens[:, i : i + 1], cache) for i in range(4, 9)]
        torch.testing.assert_close(torch.cat(parts, 1), net.features(tokens), rtol=0, atol=1e-9)
        assert cache.length == 9


@pytest.mark.parametrize("temperature", [0, 0.7, 2.0])
@pytest.mark.parametrize("head", ["softmax", "stablemax"])
def test_generation_with_a_cache_equals_recomputation(temperature, head, model):
    net, prompt = model(head=head), torch.randint(17, (3, 5))
    runs = [
        net.generate(prompt, 12, temperature=temperature, generator=torch.Generator().manual_seed(3), use_cache=use)
        for use in (True, False, None)
    ]
    assert runs[0].shape == (3, 17)
    assert torch.equal(runs[0][:, :5], prompt)
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


def test_the_cache_is_used_exactly_when_it_can_and_should_be(model):
    CountingMean.calls = 0
    prompt = torch.zeros(1, 3, dtype=torch.int64)
    model(attention=CountingMean).generate(prompt, 5, use_cache=False)
    assert CountingMean.calls == 0
    model(attention=CountingMean).generate(prompt, 5)
    assert CountingMean.calls == 2 * 4  # blocks times tokens after the first, which the prompt gives


def test_without_a_state_everything_is_computed_anew_openly(model):
    net = model(attention=Mean)
    assert not net.supports_cache
    prompt = torch.randint(17, (2, 3))
    expected = model(attention=CountingMean).generate(prompt, 6, temperature=0)
    assert torch.equal(net.generate(prompt, 6, temperature=0), expected)
    with pytest.raises(ValueError, match="use_cache: this attention has no prefill and step"):
        net.generate(prompt, 1, use_cache=True)


def test_samples_follow_the_heads_weights(model):
    net = model(head="stablemax")
    prompt = torch.randint(17, (1, 4)).expand(20000, 4)
    drawn = net.generate(prompt, 1, temperature=1.5, generator=torch.Generator().manual_seed(1))[:, -1]
    expected = mm.stablemax(net.logits(prompt[:1])[0, -1] / 1.5)
    torch.testing.assert_close(torch.bincount(drawn, minlength=17) / 20000, expected.float(), atol=0.012, rtol=0)


def test_temperature_zero_is_the_likeliest_token(model):
    net, prompt = model(), torch.randint(17, (2, 4))
    out = net.generate(prompt, 3, temperature=0)
    for i in range(4, 7):
        assert torch.equal(out[:, i], net.logits(out[:, :i])[:, -1].argmax(-1))


def test_generation_makes_no_graph_and_zero_steps_return_the_prompt(model):
    prompt = torch.randint(17, (2, 4))
    assert torch.equal(model().generate(prompt, 0), prompt)
    assert not model().generate(prompt, 1).requires_grad


@pytest.mark.parametrize(
    ("options", "call", "words"),
    [
        ({"causal": False}, {}, "generate: expected a causal model whose classes are its vocabulary"),
        ({"num_classes": 3}, {}, "generate: expected a causal model whose classes are its vocabulary"),
        (
            {},
            {"prompt": torch.zeros(2, 0, dtype=torch.int64)},
            r"prompt: expected .* with N at least 1, got",
        ),
        ({}, {"steps": -1}, "expected at least 0, got -1 and"),
        ({}, {"temperature": -0.5}, "expected at least 0, got 1 and -0.5"),
    ],
)
def test_errors(options, call, words, model):
    with pytest.raises(ValueError, match=words):
        model(**options).generate(**({"prompt": torch.zeros(1, 2, dtype=torch.int64), "steps": 1} | call))
