import math
from functools import partial

import pytest
import torch

import manymax as mm
from manymax.models.gpt import GPT
from manymax.models.probe import Layer, probe, statistics
from manymax.models.vit import ViT


@pytest.fixture
def model(awake):
    def make(**options):
        torch.manual_seed(0)
        return awake(GPT(17, **({"depth": 3, "width": 24, "num_heads": 4, "num_kv_heads": 2} | options)))

    return make


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "entmax15"])
def test_weights_and_scores_are_those_of_the_model(attention, model):
    net, tokens = model(attention=attention), torch.randint(17, (2, 9))
    out = []
    for block in net.blocks:
        block.attention.mechanism.register_forward_hook(lambda module, inputs, output: out.append((inputs[2], output)))
    layers = probe(net, tokens)
    assert len(layers) == len(out) == 3
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    for layer, (value, output) in zip(layers, out, strict=True):
        torch.testing.assert_close(layer.weights @ value.repeat_interleave(2, 1), output)
        key = layer.key.repeat_interleave(2, 1)
        torch.testing.assert_close(layer.scores[..., causal], (layer.query @ key.mT / 6**0.5)[..., causal])
        assert bool((layer.scores[..., ~causal] == -torch.inf).all())
        weigh = getattr(mm, attention)
        torch.testing.assert_close(layer.weights, weigh(layer.scores))


def test_scale_window_softcap_and_backend_are_the_mechanisms_own(model):
    options = {"scale": 0.3, "window": (2, 0), "softcap": 1.5, "sinks": True, "backend": "tiled"}
    net = model(attention=partial(mm.create_attention, "softmax", **options))
    for block in net.blocks:
        torch.nn.init.normal_(block.attention.mechanism.sinks)
    layers = probe(net, torch.randint(17, (2, 9)))
    distance = torch.arange(9)[:, None] - torch.arange(9)
    seen = (distance >= 0) & (distance <= 2)
    for layer, block in zip(layers, net.blocks, strict=True):
        expected = (0.3 * layer.query @ layer.key.repeat_interleave(2, 1).mT).masked_fill(~seen, -torch.inf)
        torch.testing.assert_close(layer.scores, expected)
        sinks = block.attention.mechanism.sinks[:, None, None].expand(2, 4, 9, 1)
        row = torch.cat([(1.5 * (expected / 1.5).tanh()).masked_fill(~seen, -torch.inf), sinks], -1)
        torch.testing.assert_close(layer.weights, row.softmax(-1)[..., :-1])


class Mean(torch.nn.Module):
    def __init__(self, head_dim, num_heads):
        super().__init__()

    def forward(self, query, key, value, *, attn_mask=None, is_causal=False):
        return value.cumsum(2)


def test_a_mechanism_without_weights_has_scores_alone(model):
    layers = probe(model(attention=Mean, num_kv_heads=4), torch.randint(17, (1, 5)))
    assert all(layer.weights is None for layer in layers)
    numbers = statistics(layers)
    assert numbers["largest_score"] > 0
    assert numbers["entropy"] is numbers["first_token_share"] is None


def test_probing_leaves_no_hook_and_no_graph():
    net, images = ViT((1, 8, 8), 10), torch.randn(2, 1, 8, 8)
    layers = probe(net, images)
    assert layers[0].weights.shape == (2, 2, 16, 16)
    assert not layers[0].scores.requires_grad
    assert bool(layers[0].scores.isfinite().all())
    assert not any(module._forward_pre_hooks for module in net.modules())


def layer(scores, weights):
    return Layer(torch.empty(0), torch.empty(0), torch.tensor([[scores]]), torch.tensor([[weights]]))


def test_statistics_by_hand():
    inf = math.inf
    first = layer([[1.0, -inf], [-7.0, 2.0]], [[0.5, 0.0], [0.5, 1.5]])
    second = layer([[0.0, -inf], [0.0, 0.0]], [[0.0, 0.0], [-1.0, 1.0]])
    numbers = statistics([first, second])
    # Rows (1, 0), (1/4, 3/4) and (1/2, 1/2); the row of zeros does not count.
    entropies = [0, -math.log(1 / 4) / 4 - math.log(3 / 4) * 3 / 4, math.log(2)]
    assert numbers["largest_score"] == 7
    assert numbers["entropy"] == pytest.approx(sum(entropies) / 3)
    assert numbers["first_token_share"] == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)


def test_nan_is_not_hidden():
    numbers = statistics([layer([[1.0, math.nan]], [[0.5, math.nan]]), layer([[1.0, 3.0]], [[0.5, 0.5]])])
    assert all(math.isnan(number) for number in numbers.values())
