"""Weights in effect against recurrences run token by token, one unit vector of values at a time."""

import numpy as np
import pytest
import torch

import manymax as mm
from manymax.diagnose.diagnosis import AttentionLayer, Diagnosis
from manymax.diagnose.effective import WIDTH, Call, look
from manymax.diagnose.finding import number
from manymax.diagnose.recurrent_meaning import recurrent
from manymax.diagnose.state_sums import StateSums
from manymax.models.gpt import GPT

TOKENS = WIDTH + 7  # two tiles
RECURRENCES = (
    "linear",
    "linear-favor",
    "delta",
    "gated-delta",
    "gated-linear",
    "retention",
    "mamba2",
    "lightning-attention",
    "dsf",
)


def draw(name, kv_heads=2, tokens=TOKENS, **options):
    torch.manual_seed(0)
    mechanism = mm.create_attention(name, head_dim=8, num_heads=4, **options).eval()
    query, key, value = (torch.randn(2, heads, tokens, 8) for heads in (4, kv_heads, kv_heads))
    return mechanism, query, key, value


def seen(mechanism, query, key, value, **options):
    with torch.no_grad():
        return look(mechanism, Call(query, key, value, mechanism(query, key, value, **options), options))


def by_hand(streams):
    """Return the weights (B, H, N, N) and last states (B, H, Dk, Dv) of a recurrence, in loops over tokens."""
    q, k, v = (x.double().numpy() for x in streams[:3])
    batch, heads, tokens, dim = q.shape
    decay = np.zeros((batch, heads, tokens, dim)) if streams.log_decay is None else None
    if decay is None:
        log = streams.log_decay.double().numpy()
        log = log[None, :, None, None] if log.ndim == 1 else log if log.ndim == 4 else log[..., None]
        decay = np.broadcast_to(log, (batch, heads, tokens, dim))
    beta = None if streams.beta is None else streams.beta.double().numpy()
    weights, states = np.zeros((batch, heads, tokens, tokens)), np.zeros((batch, heads, dim, v.shape[3]))
    for b in range(batch):
        for h in range(heads):
            state, memory = np.zeros((dim, tokens)), np.zeros((dim, v.shape[3]))
            for t in range(tokens):
                fade = np.exp(decay[b, h, t])[:, None]
                writes = []
                for held, write in ((fade * state, np.eye(tokens)[t]), (fade * memory, v[b, h, t])):
                    new = write if beta is None else beta[b, h, t] * (write - k[b, h, t] @ held)
                    writes.append(held + np.outer(k[b, h, t], new))
                state, memory = writes
                weights[b, h, t] = q[b, h, t] @ state
            states[b, h] = memory
    return torch.from_numpy(weights), torch.from_numpy(states)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", RECURRENCES)
def test_rows_are_those_of_the_recurrence_token_by_token(name, padded):
    mechanism, query, key, value = draw(name)
    keep = torch.ones(2, TOKENS, dtype=torch.bool)
    keep[1, :5] = not padded
    options = {"is_causal": True} | ({"attn_mask": keep[:, None, None, :]} if padded else {})
    found = seen(mechanism, query, key, value, **options)
    tiles = list(found.tiles)
    assert [tile.start for tile in tiles] == [0, WIDTH]
    assert max(tile.weights.shape[2] for tile in tiles) == WIDTH
    weights = torch.cat([tile.weights for tile in tiles], 2).double()
    wanted, states = by_hand(found.streams)
    size = wanted.abs().sum(-1, keepdim=True)
    torch.testing.assert_close(weights, wanted / size.clamp(min=1e-30), rtol=1e-4, atol=1e-5)
    output = torch.cat([tile.output for tile in tiles], 2)
    with torch.no_grad():
        torch.testing.assert_close(output, mechanism(query, key, value, **options))
    visible = torch.cat([tile.visible.expand(2, 1, -1, TOKENS) for tile in tiles], 2)
    assert torch.equal(visible, torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril() & keep[:, None, None])
    assert (weights.masked_fill(visible, 0) == 0).all()
    sums = StateSums(4)
    sums.add(found.streams, keep)
    assert sums.numbers()["infinity_norm"] == pytest.approx(float(states.abs().max()), rel=1e-4)


@pytest.mark.parametrize(("name", "causal"), [("aaren", True), ("softmax-rnn", True), ("flowformer", False)])
def test_other_rules_have_the_weights_that_unit_vectors_show(name, causal):
    mechanism, query, key, value = draw(name, kv_heads=4, tokens=21)
    found = seen(mechanism, query, key, value, is_causal=causal)
    assert found.streams is None
    weights = torch.cat([tile.weights for tile in found.tiles], 2)
    wanted = mm.attention_weights(mechanism, query, key, is_causal=causal)
    torch.testing.assert_close(weights, wanted / wanted.abs().sum(-1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_shared_keys_are_not_summed_over_their_heads():
    mechanism, query, key, value = draw("aaren", kv_heads=1, tokens=9)
    tiles = seen(mechanism, query, key, value, is_causal=True).tiles
    weights = torch.cat([tile.weights for tile in tiles], 2)
    wanted = mm.attention_weights(mechanism, query, key.expand(-1, 4, -1, -1), is_causal=True)
    torch.testing.assert_close(weights, wanted, rtol=1e-3, atol=1e-5)


def test_without_order_a_rule_that_adds_sees_all():
    mechanism, query, key, value = draw("linear")
    found = seen(mechanism, query, key, value)
    weights = torch.cat([tile.weights for tile in found.tiles], 2)
    wanted = mm.attention_weights(mechanism, query, key.repeat_interleave(2, 1))
    torch.testing.assert_close(weights, wanted, rtol=1e-3, atol=1e-5)
    assert all(tile.visible.all() for tile in seen(mechanism, query, key, value).tiles)
    fewer = seen(mechanism, query[:, :, :9], key, value)
    torch.testing.assert_close(torch.cat([tile.weights for tile in fewer.tiles], 2), weights[:, :, :9])
    sums = StateSums(4)
    sums.add(fewer.streams)
    _, states = by_hand(found.streams)
    assert sums.numbers()["infinity_norm"] == pytest.approx(float(states.abs().max()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "causal", "options"),
    [
        ("sd-ssm", True, {}),
        ("nats-l", True, {}),
        ("gated-delta", False, {}),
        ("retention", False, {}),  # the mean of two scans, each with a norm of its own
        ("linear", False, {"conv_size": 3}),  # each channel of a value has a convolution of its own
    ],
)
def test_a_rule_that_is_not_linear_says_so(name, causal, options):
    mechanism, query, key, value = draw(name, tokens=20, **options)
    found = seen(mechanism, query, key, value, is_causal=causal)
    assert found.tiles is None
    assert f"{type(mechanism).__name__} gives no sums of values by weights" in found.said


def test_memory_is_the_mean_of_log_decays():
    mechanism, query, key, value = draw("gated-delta", kv_heads=4)
    keep = torch.ones(2, TOKENS, dtype=torch.bool)
    keep[1, 40:] = False
    found = seen(mechanism, query, key, value, is_causal=True, attn_mask=keep[:, None, None, :])
    sums = StateSums(4)
    sums.add(found.streams, keep)
    logs = found.streams.log_decay.double()
    mean = (logs[0].sum(-1) + logs[1, :, :40].sum(-1)) / (TOKENS + 40)
    assert sums.memory == pytest.approx((-1 / mean).tolist(), rel=1e-6)
    channels, *rest = draw("gated-linear")
    found = seen(channels, *rest, is_causal=True)
    each = StateSums(4)
    each.add(found.streams)
    middle = (-found.streams.log_decay.double().mean((0, 2))).quantile(0.5, -1)
    assert each.memory == pytest.approx((1 / middle).tolist(), rel=1e-6)
    fixed, *rest = draw("retention")
    every = StateSums(4)
    every.add(seen(fixed, *rest, is_causal=True).streams)
    assert every.memory == pytest.approx([-1 / np.log(1 - 2.0 ** (-5 - head)) for head in range(4)], rel=1e-6)
    for name in ("delta", "linear-favor"):
        plain, *rest = draw(name)
        none = StateSums(4)
        none.add(seen(plain, *rest, is_causal=True).streams)
        assert none.memory is None


PIECES = ((slice(0, 1), slice(0, 40)), (slice(1, 2), slice(9, 40)))  # a batch of two without its padding


def awake(model):
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_a_model_of_ours(tmp_path):
    torch.manual_seed(1)
    model = awake(GPT(vocabulary=32, depth=2, attention="gated-delta"))
    found = mm.diagnose.run(model, [torch.randint(32, (2, 48)), torch.randint(32, (1, 48))])
    assert found.tokens == 3 * 48
    for layer in found.layers:
        assert layer.has_weights
        assert "before any norm" in layer.note
        assert len(layer.heads["memory"]) == 2
        assert 0 < layer.heads["negative_share"][0] < 1
        assert layer.state["infinity_norm"] > 0
    names = [one.name for one in found.findings()]
    assert "Memory of decaying states, in tokens to 1 / e" in names
    assert "Largest entry of a state" in names
    assert "Largest attention score" not in names
    text = found.save(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Mechanisms without a map" in text
    assert "Negative weights by layer and head" in text


def test_a_decoder_of_transformers_with_replaced_layers(capsys):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=40))
    mm.integrations.transformers.replace_attention(model, "gated-delta", layers=[0, 2])
    keep = torch.ones(2, 40, dtype=torch.int64)
    keep[1, :9] = 0
    batch = {"input_ids": torch.randint(3, 40, (2, 40)), "attention_mask": keep}
    found = mm.diagnose.run(model, [batch])
    assert [layer.name for layer in found.layers] == [f"model.layers.{n}.self_attn" for n in range(3)]
    assert [bool(layer.note) for layer in found.layers] == [True, False, True]
    assert all(layer.has_weights for layer in found.layers)
    assert found.tokens == 71
    pieces = [{name: x[rows, columns] for name, x in batch.items()} for rows, columns in PIECES]
    alone = mm.diagnose.run(model, pieces)
    for layer, other in zip(found.layers, alone.layers, strict=True):
        for name in ("first_share", "relative_entropy", "negative_share", *(["memory"] if layer.note else [])):
            assert layer.heads[name] == pytest.approx(other.heads[name], rel=1e-3, abs=1e-5), name
    mm.integrations.transformers.replace_attention(model, "sd-ssm", layers=[1])
    bare = mm.diagnose.run(model, [batch])
    bare.print()
    assert "model.layers.1.self_attn: SelectiveDense gives no sums" in capsys.readouterr().out
    assert next(one for one in bare.findings() if one.name == "Layers without weights").value == "1 of 3"


@pytest.mark.parametrize(
    ("memory", "norm", "kurtosis", "flags", "words"),
    [
        ([2.0, 90.0], 3.0, 5.0, (False, False), ("comes on top", "no heavy tail")),
        ([2.0, 9.0], 3.0, 500.0, (True, True), ("gone before a tenth", "nearly all")),
        ([2.0, 11.0], 7e4, 5.0, (False, True), ("comes on top", "float16")),
    ],
)
def test_sentences_follow_the_states(memory, norm, kurtosis, flags, words):
    heads = {"memory": memory, "negative_share": [0.0, 0.4]}
    state = {"infinity_norm": norm, "kurtosis": kurtosis}
    layers = [AttentionLayer("one", heads, [], "Weights.", state), AttentionLayer("two", {}, [])]
    found = recurrent(Diagnosis("M", 2, 200, 0.3, layers, [], [], [], None))
    held, largest = found
    assert held.value == f"2.0 to {number(memory[1], 2)}"
    assert (held.flagged, largest.flagged) == flags
    assert words[0] in held.meaning
    assert words[1] in largest.meaning
    layers[0] = AttentionLayer("one", {**heads, "sink": [0.0, 0.0]}, [], "Weights.", state)
    negative = recurrent(Diagnosis("M", 2, 200, 0.3, layers, [], [], [], None))[0]
    assert (negative.value, negative.flagged) == ("20 %", False)
    assert "Up to 40 % in a head" in negative.meaning
