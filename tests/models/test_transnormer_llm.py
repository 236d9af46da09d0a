"""TransNormerLLM against its formulas: all pairs, token by token, with loops."""

import math

import pytest
import torch

from manymax.models.gpt import GPT
from manymax.models.layers import Cache
from manymax.models.transnormer_llm import TransNormerLLM

WIDTH, HEADS, HIDDEN, DEPTH = 12, 3, 20, 3
DIM = WIDTH // HEADS


@pytest.fixture
def model(awake):
    def make(**options):
        torch.manual_seed(0)
        sizes = {"depth": DEPTH, "width": WIDTH, "num_heads": HEADS, "hidden": HIDDEN}
        made = awake(TransNormerLLM(17, **(sizes | options)).double())
        made.blocks[0].attention.mechanism.theta.data += 0.1 * torch.rand(HEADS, DIM)  # as if it were learnt
        return made

    return make


def normal(x, eps):
    return x / (x.square().mean() + eps).sqrt()


def silu(x):
    return x / (1 + (-x).exp())


def rate(decay, head, layer):
    """The paper's decay, or the released code's; heads count from 1 and layers from 0."""
    if decay == "paper":
        return math.exp(-8 * head / HEADS * (1 - layer / DEPTH))
    return math.exp(-(2 ** (-8 * head / HEADS)) * (1 - layer / (DEPTH - 1) + 1e-5))


def by_hand(model, tokens, decay):
    """The features of one sequence, a token at a time, from the weights by the formula."""
    tiny = torch.finfo(torch.float64).eps
    stream = [model.embedding.weight[token] for token in tokens.tolist()]
    for layer, block in enumerate(model.blocks):
        projections = block.attention.query_key_value.weight.split(WIDTH)
        read = [normal(x, tiny) for x in stream]
        query, key, value = ([w @ x for x in read] for w in projections)
        theta = block.attention.mechanism.theta if layer == 0 else torch.zeros(HEADS, DIM)
        for i in range(len(stream)):
            heads = []
            for h in range(HEADS):
                at = slice(DIM * h, DIM * (h + 1))
                out = torch.zeros(DIM, dtype=torch.float64)
                for j in range(i + 1):
                    turned = torch.cos(theta[h] * (i - j))
                    weight = (silu(query[i][at]) * turned * silu(key[j][at])).sum() * rate(decay, h + 1, layer) ** (
                        i - j
                    )
                    out = out + weight * value[j][at]
                heads.append(out)
            opened = normal(torch.cat(heads), 1e-6) * (block.attention.gate.weight @ read[i])
            stream[i] = stream[i] + block.attention.output.weight @ opened
        for i, x in enumerate(stream):
            first, second = (w @ normal(x, tiny) for w in block.mlp.gate_and_hidden.weight.split(HIDDEN))
            stream[i] = x + block.mlp.output.weight @ (first * second)
    return torch.stack([normal(x, tiny) for x in stream])


@torch.no_grad()
@pytest.mark.parametrize("decay", ["paper", "code"])
@pytest.mark.parametrize("backend", ["auto", "quadratic"])
def test_features_are_those_of_the_formula(decay, backend, model):
    net, tokens = model(decay=decay, backend=backend), torch.tensor([3, 1, 16, 4, 1, 5, 9])
    torch.testing.assert_close(net.features(tokens[None])[0], by_hand(net, tokens, decay), rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("decay", ["paper", "code"])
@pytest.mark.parametrize("prompt", [1, 6])
def test_token_by_token_is_all_at_once(decay, prompt, model):
    net, tokens = model(decay=decay), torch.randint(17, (2, 70))
    cache = Cache()
    parts = [net.features(tokens[:, :prompt], cache)]
    held = cache.nbytes
    parts += [net.features(tokens[:, i : i + 1], cache) for i in range(prompt, 70)]
    torch.testing.assert_close(torch.cat(parts, 1), net.features(tokens), rtol=0, atol=1e-9)
    assert cache.nbytes == held
    assert cache.length == 70


def test_generation_carries_the_state(model):
    net, prompt = model(), torch.randint(17, (2, 4))
    assert net.supports_cache
    anew = net.generate(prompt, 12, temperature=0, use_cache=False)
    assert torch.equal(net.generate(prompt, 12, temperature=0), anew)


def test_each_head_and_block_has_a_decay_of_its_own(model):
    for decay in ("paper", "code"):
        found = [block.attention.mechanism.slopes for block in model(decay=decay).blocks]
        expected = [[-math.log(rate(decay, h, layer)) for h in (1, 2, 3)] for layer in range(DEPTH)]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=0)
        assert len({slope for slopes in found for slope in slopes}) >= 8


def test_there_are_no_gains_and_the_first_block_alone_turns(model):
    names = [name for name, _ in model().named_parameters()]
    assert not [name for name in names if "norm" in name or "bias" in name]
    assert [name for name in names if "mechanism" in name] == ["blocks.0.attention.mechanism.theta"]


def test_a_third_of_the_width_pays_for_the_gate():
    def weights(net):
        return sum(parameter.numel() for parameter in net.parameters())

    own, gpt = TransNormerLLM(9, width=96, hidden=256 - 32), GPT(9, width=96, hidden=256)
    assert weights(own) + 5 * 96 == weights(gpt) + 96  # gains of five norms there, an angle a channel here


def test_heads_may_be_odd_since_nothing_is_turned_in_pairs():
    net = TransNormerLLM(9, width=12, num_heads=4)
    assert net.logits(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 9)


def test_gradients_reach_every_parameter(model):
    net, tokens = model(num_classes=5), torch.randint(17, (3, 8))
    net(tokens, torch.randint(5, (3, 8))).backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in net.parameters())


def test_wrong_options():
    for message, options in {
        "decay: expected 'paper' or 'code', got 'alibi'": {"decay": "alibi"},
        "backend: expected one of auto": {"backend": "fast"},
        "num_heads: expected a divisor of the width 64, got 3": {"num_heads": 3},
    }.items():
        with pytest.raises(ValueError, match="expected") as raised:
            TransNormerLLM(9, **options)
        assert str(raised.value).startswith(message)
