"""The recurrence in its forms: one rule, whatever computes it."""

import inspect

import pytest
import torch
from mechanism_cases import CAUSAL, make, tokens

import manymax as mm
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.recurrence import FORMS
from manymax.attention.registry import mechanism_class
from manymax.kernels.native import native

EXACT = {"rtol": 1e-10, "atol": 1e-10}
B, H, N, DK, DV = 2, 4, 75, 5, 7
WAYS = {"chunked": {}, "chunks of 7": {"chunk_size": 7}, "one chunk": {"backend": "quadratic"}}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def forget(x):
    """Log decays of which some forget everything, or almost."""
    x = -5 * x.abs()
    if x.dim() > 1:
        x[:, :, 10] = -torch.inf
        x[:, :, 40] = -3000
    return x


RULES = {
    "adds": dict,
    "decay of a head": lambda: {"log_decay": forget(random(H))},
    "decay of a token": lambda: {"log_decay": forget(random(B, H, N))},
    "decay of a channel": lambda: {"log_decay": forget(random(B, H, N, DK))},
    "delta": lambda: {"beta": torch.rand(B, H, N, dtype=torch.float64)},
    "gated delta": lambda: {"beta": torch.rand(B, H, N, dtype=torch.float64), "log_decay": forget(random(B, H, N))},
}


def inputs(rule, kv_heads=2):
    torch.manual_seed(0)
    key = torch.nn.functional.normalize(random(B, kv_heads, N, DK), dim=-1)
    tensors = {"query": random(B, H, N, DK), "key": key, "value": random(B, kv_heads, N, DV)}
    return {**tensors, "initial_state": random(B, H, DK, DV), **RULES[rule]()}


def graded(arguments, **options):
    """Return outputs, final state and all gradients."""
    leaves = {name: x.clone().requires_grad_() for name, x in arguments.items()}
    out, state = mm.linear_attention(**leaves, **options)
    torch.manual_seed(1)
    loss = (out * random(*out.shape).to(out)).sum() + (state * random(*state.shape).to(state)).sum()
    return [out, state, *torch.autograd.grad(loss, list(leaves.values()))]


def by_definition(query, key, value, initial_state, log_decay=None, beta=None):
    """The definition with matrices, head by head, as papers write it."""
    log_decay = torch.zeros(H) if log_decay is None else log_decay
    key, value = key.repeat_interleave(H // key.shape[1], 1), value.repeat_interleave(H // value.shape[1], 1)
    outs = torch.zeros(B, H, N, DV, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            state = initial_state[b, h]
            for t in range(N):
                k, v = key[b, h, t], value[b, h, t]
                decay = log_decay[h] if log_decay.dim() == 1 else log_decay[b, h, t]
                keep = torch.diag(decay.exp().expand(DK).double())
                if beta is None:
                    state = keep @ state + torch.outer(k, v)
                else:
                    erase = torch.eye(DK, dtype=torch.float64) - beta[b, h, t] * torch.outer(k, k)
                    state = erase @ keep @ state + beta[b, h, t] * torch.outer(k, v)
                outs[b, h, t] = state.T @ query[b, h, t]
    return outs


@pytest.mark.parametrize("rule", RULES)
def test_token_by_token_is_the_definition(rule):
    arguments = inputs(rule)
    out, _ = mm.linear_attention(**arguments, backend="recurrent")
    torch.testing.assert_close(out, by_definition(**arguments), **EXACT)


@pytest.mark.parametrize("form", WAYS)
@pytest.mark.parametrize("rule", RULES)
def test_forms_agree_in_outputs_state_and_gradients(rule, form):
    arguments = inputs(rule)
    for found, expected in zip(graded(arguments, **WAYS[form]), graded(arguments, backend="recurrent"), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("rule", ["adds", "gated delta"])
def test_a_compiler_takes_it_whole_and_has_nothing_to_warn_of(rule):
    arguments = {name: x.float() for name, x in inputs(rule).items()}
    torch.compiler.reset()
    compiled = torch.compile(mm.linear_attention, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**arguments), mm.linear_attention(**arguments))


@pytest.mark.parametrize("backend", ["auto", "recurrent", "chunked", "quadratic"])
@pytest.mark.parametrize("rule", RULES)
def test_autocast_shortens_query_key_and_value_alone(rule, backend):
    arguments = {name: x.float() for name, x in inputs(rule).items()}
    short = {name: arguments[name].bfloat16() for name in ("query", "key", "value")}
    expected = mm.linear_attention(**arguments | short, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        found = mm.linear_attention(**arguments, backend=backend)
    assert [x.dtype for x in found] == [torch.bfloat16, torch.float32]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_native_kernels_are_picked_where_they_can_serve(monkeypatch, served):
    chosen = []
    for name, form in FORMS.items():
        monkeypatch.setitem(FORMS, name, lambda *given, n=name, f=form: (chosen.append(n), f(*given))[1])
    query, key, value = torch.randn(3, 1, 2, 40, 8).unbind()
    half = [x.bfloat16() for x in (query, key, value)]
    mm.linear_attention(query, key, value)
    mm.linear_attention(*half, log_decay=torch.tensor([-0.1, -0.2]).bfloat16())
    mm.linear_attention(query.double(), key.double(), value.double())
    mm.linear_attention(query[:, :, :1].double(), key[:, :, :1].double(), value[:, :, :1].double())
    assert chosen == [served("chunked"), served("chunked"), "chunked", "recurrent"]
    with pytest.raises(ValueError, match="backend 'cpu' cannot serve this call"):
        mm.linear_attention(query.double(), key.double(), value.double(), backend="cpu")


@pytest.mark.skipif(native() is None, reason="the native kernels are not built")
@pytest.mark.parametrize("rule", RULES)
def test_native_kernels_agree(rule):
    arguments = {name: x.float() for name, x in inputs(rule).items()}
    for found, expected in zip(
        graded(arguments, backend="cpu"), graded({n: x.double() for n, x in arguments.items()}), strict=True
    ):
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


LINEAR = {label: case for label, case in CAUSAL.items() if issubclass(mechanism_class(case[0]), LinearAttention)}


@pytest.mark.parametrize("options", [{"backend": "recurrent"}, {"backend": "quadratic"}, {"chunk_size": 5}], ids=str)
@pytest.mark.parametrize("case", list(LINEAR.values()), ids=list(LINEAR))
def test_forms_of_each_mechanism_agree(case, options):
    whole = [x.requires_grad_() for x in tokens(70)]
    found, expected = (make(case, **more)(*whole, is_causal=True) for more in (options, {"backend": "chunked"}))
    torch.testing.assert_close(found, expected, **EXACT)
    weights = torch.randn_like(expected)
    for out, want in zip(*(torch.autograd.grad((x * weights).sum(), whole) for x in (found, expected)), strict=True):
        torch.testing.assert_close(out, want, **EXACT)


@pytest.mark.parametrize("rule", RULES)
def test_long_sequences_do_not_drift(rule):
    torch.manual_seed(0)
    count = 32768
    query, key, value = torch.randn(3, 1, 1, count, 8, dtype=torch.float64).unbind()
    key = torch.nn.functional.normalize(key, dim=-1)
    shapes = {"decay of a head": (1,), "decay of a token": (1, 1, count), "decay of a channel": (1, 1, count, 8)}
    more = {}
    if rule in shapes:
        more["log_decay"] = -0.05 * random(*shapes[rule]).abs()
    if "delta" in rule:
        more["beta"] = torch.rand(1, 1, count, dtype=torch.float64)
    if rule == "gated delta":
        more["log_decay"] = -0.05 * random(1, 1, count).abs()
    expected, _ = mm.linear_attention(query, key, value, backend="chunked", **more)
    low = {name: x.float() for name, x in more.items()}
    out, _ = mm.linear_attention(query.float(), key.float(), value.float(), **low)
    last = slice(count - 64, count)
    error = (out[:, :, last] - expected[:, :, last]).norm() / expected[:, :, last].norm()
    assert error < 2e-5


def test_low_precision_has_float32_states():
    query, key, value = torch.randn(3, 1, 2, 40, 8).bfloat16().unbind()
    out, state = mm.linear_attention(query, key, value)
    expected, _ = mm.linear_attention(query.float(), key.float(), value.float())
    assert out.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    torch.testing.assert_close(out, expected.bfloat16(), rtol=0.02, atol=0.2)


def test_no_tokens_keep_the_state():
    query, key, value, state = random(1, 2, 0, 3), random(1, 1, 0, 3), random(1, 1, 0, 4), random(1, 2, 3, 4)
    out, after = mm.linear_attention(query, key, value, initial_state=state)
    assert out.shape == (1, 2, 0, 4)
    assert torch.equal(after, state)


def test_wrong_arguments():
    query, key, value = random(2, 4, 5, 3), random(2, 2, 5, 3), random(2, 2, 5, 6)
    wrong = {
        "log_decay: expected shape (4,) or (2, 4, 5) or (2, 4, 5, 3), got (5,)": {"log_decay": random(5)},
        "log_decay: expected shape (4,) or (2, 4, 5), got (2, 4, 5, 3)": {
            "log_decay": random(2, 4, 5, 3),
            "beta": random(2, 4, 5),
        },
        "beta: expected shape (2, 4, 5), got (2, 2, 5)": {"beta": random(2, 2, 5)},
        "initial_state: expected shape (2, 4, 3, 6), got (2, 4, 3, 3)": {"initial_state": random(2, 4, 3, 3)},
        "chunk_size: expected at least 1, got 0": {"chunk_size": 0},
        f"backend: expected one of auto, {', '.join(FORMS)}, got 'chunk'; did you mean 'chunked'?": {
            "backend": "chunk"
        },
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match="expected") as raised:
            mm.linear_attention(query, key, value, **options)
        assert str(raised.value) == message
    with pytest.raises(ValueError, match=r"key: expected \(2, a divisor of 4, 5, 3\)"):
        mm.linear_attention(query, random(2, 3, 5, 3), random(2, 3, 5, 6))
    with pytest.raises(ValueError, match="value: expected"):
        mm.linear_attention(query, key, value[:, :1])
    for i, name in enumerate(("query", "key", "value")):
        mixed = [x.long() if i == j else x for j, x in enumerate((query, key, value))]
        with pytest.raises(ValueError, match=rf"^{name}: expected a floating dtype, got torch\.int64"):
            mm.linear_attention(*mixed)


def test_backends_are_documented():
    text = inspect.getdoc(mm.linear_attention)
    assert all(f'"{backend}"' in text for backend in FORMS)
