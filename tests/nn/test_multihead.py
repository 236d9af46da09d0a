"""mm.nn.MultiheadAttention gives what torch's does, and with another map what the formula says."""

import inspect

import pytest
import torch
from torch import nn

import manymax as mm

BOOL = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]).bool()  # (3 queries, 5 keys), True = hidden
PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 0, 1]]).bool()


def pair(*args, map="softmax", **options):
    torch.manual_seed(1)
    torchs = nn.MultiheadAttention(*args, **options)
    ours = mm.nn.MultiheadAttention(*args, **options, map=map)
    ours.load_state_dict(torchs.state_dict())
    return torchs, ours


def given(batch_first=False, kdim=8, vdim=8, batch=2):
    tensors = [torch.randn(batch, n, d, requires_grad=True) for n, d in ((3, 8), (5, kdim), (5, vdim))]
    return [x if batch_first else x.transpose(0, 1) for x in tensors]


OPTIONS = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True, "add_bias_kv": True},
    {"kdim": 6, "vdim": 10, "batch_first": True},
]
MASKS = [
    {},
    {"attn_mask": BOOL},
    {"attn_mask": BOOL.repeat(4, 1, 1) & (torch.arange(4)[:, None, None] != 2)},
    {"key_padding_mask": PADDING},
    {"attn_mask": BOOL, "key_padding_mask": PADDING},
    {"attn_mask": torch.randn(3, 5)},
    {"attn_mask": torch.randn(3, 5), "key_padding_mask": torch.zeros(2, 5).masked_fill(PADDING, -torch.inf)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("returned", [{}, {"average_attn_weights": False}, {"need_weights": False}], ids=str)
def test_outputs_weights_and_gradients_equal_torchs(options, masks, returned):
    torchs, ours = pair(8, 2, **options)
    sizes = {key: value for key, value in options.items() if key in {"batch_first", "kdim", "vdim"}}
    tensors = given(**sizes)
    found = []
    for layer in (torchs, ours):
        out, weights = layer(*tensors, **masks, **returned)
        torch.manual_seed(2)
        grads = torch.autograd.grad((out * torch.randn_like(out)).sum(), [*tensors, *layer.parameters()])
        found.append([out, *grads] if weights is None else [out, *grads, weights])
    assert len(found[0]) == len(found[1])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padding", [None, torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]]).bool()])
@pytest.mark.parametrize("add_zero_attn", [True, False])
def test_causal_self_attention_equals_torchs(need_weights, padding, add_zero_attn):
    torchs, ours = pair(8, 2, add_zero_attn=add_zero_attn)
    x = torch.randn(4, 2, 8)
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1)
    options = {"attn_mask": mask, "key_padding_mask": padding, "is_causal": True, "need_weights": need_weights}
    # torch forgets the key of zeros where it leaves causality to its own attention: there the weights tell.
    expected = torchs(x, x, x, **{**options, "need_weights": True})
    out, weights = ours(x, x, x, **options)
    torch.testing.assert_close(out, expected[0], rtol=1e-4, atol=1e-6)
    assert (weights is None) == (not need_weights)
    if need_weights:
        torch.testing.assert_close(weights, expected[1], rtol=1e-4, atol=1e-6)


def test_without_a_batch():
    torchs, ours = pair(8, 2, batch_first=True)
    query, key, value = (x[0] for x in given(batch_first=True))
    options = {"key_padding_mask": PADDING[1], "attn_mask": BOOL}
    for expected, got in zip(torchs(query, key, value, **options), ours(query, key, value, **options), strict=True):
        torch.testing.assert_close(got, expected)


def test_the_constructor_is_torchs_and_one_more():
    torchs = list(inspect.signature(nn.MultiheadAttention).parameters.values())
    ours = list(inspect.signature(mm.nn.MultiheadAttention).parameters.values())
    assert [(p.name, p.default) for p in ours[:-1]] == [(p.name, p.default) for p in torchs]
    assert ours[-1].name == "map"
    forward = inspect.signature(nn.MultiheadAttention.forward).parameters.values()
    ours = inspect.signature(mm.nn.MultiheadAttention.forward).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in forward]


@pytest.mark.parametrize("map", ["sigmoid", "sparsemax", "softmax1"])
def test_a_map_is_applied_to_the_visible_scores(map):
    _, ours = pair(8, 2, map=map)
    query, key, value = given()
    out, weights = ours(query, key, value, attn_mask=BOOL, key_padding_mask=PADDING, average_attn_weights=False)
    projected = [
        torch.nn.functional.linear(x, w, b).unflatten(-1, (2, 4)).permute(1, 2, 0, 3)
        for x, w, b in zip((query, key, value), ours.in_proj_weight.chunk(3), ours.in_proj_bias.chunk(3), strict=True)
    ]
    scores = projected[0] @ projected[1].mT / 2
    visible = ~(BOOL | PADDING[:, None, None, :])
    expected = mm.create_map(map)(scores, mask=visible)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(out, ours.out_proj((expected @ projected[2]).permute(2, 0, 1, 3).flatten(2)))


def test_the_shortcut_of_transformer_encoder_is_not_taken():
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    attention = mm.nn.MultiheadAttention(8, 2, batch_first=True, map="sigmoid")
    attention.load_state_dict(layer.self_attn.state_dict())
    encoder = nn.TransformerEncoder(layer, 2)
    softmax = encoder.eval()(x := torch.randn(2, 5, 8))
    layer.self_attn = attention
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    trained = encoder(x)
    with torch.no_grad():
        evaluated = encoder.eval()(x)
    torch.testing.assert_close(evaluated, trained)
    assert not torch.allclose(evaluated, softmax, atol=1e-3)


def test_hidden_rows_are_zero_and_learn_nothing():
    _, ours = pair(8, 2)
    query, key, value = given()
    out, weights = ours(query, key, value, attn_mask=torch.ones(3, 5, dtype=torch.bool))
    assert not weights.any()
    torch.testing.assert_close(out, ours.out_proj.bias.expand_as(out))


def test_dropout_drops_in_training_alone():
    _, ours = pair(8, 2, 0.5)
    tensors = given()
    assert not torch.equal(ours(*tensors)[0], ours(*tensors)[0])
    ours.eval()
    assert torch.equal(ours(*tensors)[0], ours(*tensors)[0])


def test_a_learnt_map_learns():
    layer = mm.nn.MultiheadAttention(8, 2, map=mm.create_map("softmax", temperature=nn.Parameter(torch.tensor(2.0))))
    layer(*given())[0].sum().backward()
    assert layer.map.temperature.grad is not None


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"map: expected one of .* did you mean 'sparsemax'"):
        mm.nn.MultiheadAttention(8, 2, map="sparsmax")
    layer = mm.nn.MultiheadAttention(8, 2)
    query, key, value = given()
    with pytest.raises(ValueError, match="attn_mask: expected the causal mask"):
        layer(query, key, value, is_causal=True)
    with pytest.raises(ValueError, match=r"attn_mask: expected a shape of \(3, 5\) or \(4, 3, 5\)"):
        layer(query, key, value, attn_mask=torch.zeros(5, 3))
    with pytest.raises(ValueError, match="query: expected a last dim of 8"):
        layer(torch.randn(3, 2, 6), key, value)
