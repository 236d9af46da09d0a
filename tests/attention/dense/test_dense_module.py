"""Dense attention as a module: options, learnt sinks, and a cache that gives what one causal call gives."""

import pytest
import torch
from dense_cases import COUPLED, OPTIONS, POINTWISE, RATIO, THRESHOLD

import manymax as mm


def tensors():
    shapes = ((2, 4, 13, 8), (2, 2, 13, 8), (2, 2, 13, 6))
    return tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("name", [*RATIO, *POINTWISE, *THRESHOLD, *COUPLED])
def test_it_is_attention_with_the_maps_options(name):
    query, key, value = tensors()
    options = OPTIONS.get(name, {"temperature": 1.5})
    module = mm.create_attention(name, head_dim=8, num_heads=4, scale=0.4, softcap=3.0, window=(6, 2), **options)
    mask = torch.rand(13, 13) > 0.3
    got = module(query, key, value, attn_mask=mask, is_causal=True)
    fixed = {"scale": 0.4, "softcap": 3.0, "window": (6, 2), "enable_gqa": True}
    want = mm.attention(query, key, value, mask, is_causal=True, map=mm.create_map(name, **options), **fixed)
    torch.testing.assert_close(got, want)


def test_sinks_and_map_options_are_learnt():
    alpha = torch.nn.Parameter(torch.tensor(1.4, dtype=torch.float64))
    module = mm.create_attention("entmax", head_dim=8, num_heads=4, sinks=True, alpha=alpha).double()
    assert {name: p.shape for name, p in module.named_parameters()} == {"sinks": (4,), "map.alpha": ()}
    module(*tensors()).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("causal_align", ["top-left", "bottom-right"])
def test_causal_align(causal_align):
    query, key, value = tensors()
    module = mm.create_attention("relu", head_dim=8, num_heads=4, causal_align=causal_align, backend="tiled")
    got = module(query[:, :, :5], key, value, is_causal=True)
    options = {"is_causal": True, "causal_align": causal_align, "enable_gqa": True, "map": "relu"}
    torch.testing.assert_close(got, mm.attention(query[:, :, :5], key, value, **options))


def test_dropout_only_while_training():
    query, key, value = tensors()
    module = mm.create_attention("softmax", head_dim=8, num_heads=4, dropout_p=0.5)
    assert not torch.equal(module(query, key, value), module(query, key, value))
    module.eval()
    assert torch.equal(module(query, key, value), module(query, key, value))


def test_choice_names_the_backend_that_serves():
    query, key, value = tensors()
    for backend in ("reference", "tiled", "sdpa"):
        module = mm.create_attention("softmax", head_dim=8, num_heads=4, backend=backend)
        assert module.choice(query, key, value, is_causal=True).name == backend
    assert mm.create_attention("softmax", head_dim=8, num_heads=4).choice(query, key, value).name == "sdpa"


@pytest.mark.parametrize("name", [*RATIO, *POINTWISE, *THRESHOLD, "normalized"])
@pytest.mark.parametrize("window", [None, 4, (3, 0), (None, 2), 0])
def test_steps_give_what_one_causal_call_gives(name, window):
    query, key, value = tensors()
    sinks = name in {*RATIO, *THRESHOLD}
    module = mm.create_attention(
        name, head_dim=8, num_heads=4, window=window, sinks=sinks, **OPTIONS.get(name, {})
    ).double()
    want = module(query, key, value, is_causal=True)
    out, state = module.prefill(*(x[:, :, :5] for x in (query, key, value)))
    parts = [out]
    for tokens in (slice(5, 6), slice(6, 9), slice(9, 13)):
        out, state = module.step(*(x[:, :, tokens] for x in (query, key, value)), state)
        parts.append(out)
    got = torch.cat(parts, 2)
    torch.testing.assert_close(got, want)
    for a, b in zip(
        torch.autograd.grad(got.sum(), (query, key, value)),
        torch.autograd.grad(want.sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    left = window[0] if isinstance(window, tuple) else window
    assert state.key.shape[2] == (13 if left is None else left)
    assert state.value.shape[2] == state.key.shape[2]


def test_a_state_may_go_on_in_two_ways():
    query, key, value = tensors()
    module = mm.create_attention("softmax", head_dim=8, num_heads=4)
    _, state = module.prefill(*(x[:, :, :5] for x in (query, key, value)))
    before = state.key.clone()
    first, _ = module.step(*(x[:, :, 5:6] for x in (query, key, value)), state)
    module.step(*(x[:, :, 7:8] for x in (query, key, value)), state)
    again, _ = module.step(*(x[:, :, 5:6] for x in (query, key, value)), state)
    assert torch.equal(first, again)
    assert torch.equal(state.key, before)


def test_a_state_of_others_is_refused():
    whole = tensors()
    module = mm.create_attention("softmax", head_dim=8, num_heads=4)
    _, state = module.prefill(*whole)
    narrow = (*whole[:2], whole[2][..., 1:])
    for other, given in ((state[:1], whole), (state, [x[:1] for x in whole]), (state, narrow)):
        with pytest.raises(ValueError, match=r"^state: expected that of \(batch, heads, tokens, dim\)"):
            module.step(*given, other)


def test_sinkhorn_has_no_cache():
    query, key, value = tensors()
    module = mm.create_attention("sinkhorn", head_dim=8, num_heads=4)
    assert not module.supports_cache
    assert mm.create_attention("normalized", head_dim=8, num_heads=4).supports_cache
    with pytest.raises(
        ValueError, match="step: expected a map whose rows stand alone; in sinkhorn a new row changes all"
    ):
        module.prefill(query, key, value)


def test_prefill_needs_as_many_keys_as_queries():
    query, key, value = tensors()
    module = mm.create_attention("softmax", head_dim=8, num_heads=4)
    with pytest.raises(ValueError, match="key: expected one for each of 3 queries"):
        module.prefill(query[:, :, :3], key, value)


@pytest.mark.parametrize("shape", [(2, 4, 13, 7), (2, 2, 13, 8), (4, 13, 8)])
def test_a_query_of_another_shape_is_refused(shape):
    module = mm.create_attention("softmax", head_dim=8, num_heads=4)
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"query: expected \(batch, 4, tokens, 8\), got "):
        module(x, x, x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": -2}, ValueError, "window: expected"),
        ({"backend": "tilde"}, ValueError, "backend: expected one of"),
        ({"backend": "triton"}, ValueError, "backend 'triton' cannot serve this call: it is not built yet"),
        (
            {"backend": "sdpa", "softcap": 3.0},
            ValueError,
            "backend 'sdpa' cannot serve this call: torch has no softcap",
        ),
        ({"temperature": 0.0}, ValueError, "temperature: expected"),
        (
            {"sofcap": 3.0},
            TypeError,
            r"softmax attention has no option 'sofcap'; .* softcap, .* the map has temperature; did .* 'softcap'\?",
        ),
        ({"temprature": 3.0}, TypeError, r"did you mean 'temperature'\?"),
    ],
)
def test_options_are_checked_on_creation(options, error, message):
    with pytest.raises(error, match=message):
        mm.create_attention("softmax", head_dim=8, num_heads=4, **options)


def test_sinks_need_a_row():
    with pytest.raises(ValueError, match="sinks: expected a ratio or threshold map"):
        mm.create_attention("relu", head_dim=8, num_heads=4, sinks=True)


def test_repr_shows_what_was_chosen():
    text = repr(mm.create_attention("softmax", head_dim=8, num_heads=4, window=(3, 0), sinks=True))
    assert text.startswith("DenseAttention(\n  head_dim=8, num_heads=4, window=(3, 0)")
