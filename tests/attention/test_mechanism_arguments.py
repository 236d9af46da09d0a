"""What every mechanism does with arguments and options that do not fit, and with empty ones."""

import inspect
import math
import re

import pytest
import torch
from mechanism_cases import CASES, CAUSAL, DIM, EXACT, HEADS, attempt, each, make, tokens

import manymax as mm
from manymax.attention.registry import ATTENTIONS, MECHANISMS, mechanism_class


@each(CASES)
def test_wrong_arguments(case):
    module, (query, key, value) = make(case), tokens(5)
    with pytest.raises(ValueError, match=rf"query: expected \(batch, {HEADS}, tokens, {DIM}\)"):
        module(query[:, :2], key, value)
    with pytest.raises(ValueError, match="key: expected"):
        module(query, key[..., :2], value)
    with pytest.raises(ValueError, match="key: expected a number of heads that divides"):
        module(query, key[:, :3], value[:, :3])
    with pytest.raises(ValueError, match="value: expected"):
        module(query, key, value[:, :, :2])
    with pytest.raises(ValueError, match="attn_mask: expected bool of shape"):
        module(query, key, value, attn_mask=torch.ones(5, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="attn_mask: expected bool of shape"):
        module(query, key, value, attn_mask=torch.ones(1, 2, 1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="attn_mask: expected bool of shape"):
        module(query, key, value, attn_mask=torch.zeros(2, 1, 1, 5))
    for i, name in enumerate(("query", "key", "value")):
        mixed = [x.long() if i == j else x for j, x in enumerate((query, key, value))]
        with pytest.raises(ValueError, match=rf"^{name}: expected a floating dtype, got torch\.int64"):
            module(*mixed)
    with pytest.raises(ValueError, match="cu_seqlens: expected one row"):
        module(query, key, value, cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="cu_seqlens: expected rising bounds from 0 to 5"):
        module(query[:1], key[:1], value[:1], cu_seqlens=torch.tensor([0, 4]))
    with pytest.raises(TypeError, match="sise"):
        make(case, sise=3)


@each(CASES)
def test_values_of_another_dim_are_served_or_refused(case):
    module, (query, key, value) = make(case), tokens(5)
    narrow = value[..., : DIM - 1]
    forms = [{}, {"is_causal": True}] if case in CAUSAL.values() else [{}]
    for form in forms:
        out, refusal = attempt(module, query, key, narrow, **form)
        if refusal is not None:
            assert refusal == f"value: expected a last dim of {DIM}, as value_dim says, got {DIM - 1}"
            out = make(case, value_dim=DIM - 1)(query, key, narrow, **form)
        assert out.shape == narrow.shape


@each(CAUSAL)
def test_a_state_of_others_is_refused(case):
    module, whole = make(case), tokens(5)
    _, state = module.prefill(*whole)
    for other, given in ((state[:1], whole), (state, tokens(5, batch=1)), (state, tokens(5, batch=3))):
        with pytest.raises(
            ValueError, match=f"^state: expected one of {len(given[0])} sequences, .*, got {other.batch}"
        ):
            module.step(*given, other)
    with pytest.raises(ValueError, match=r"^(state|initial_state|value): expected .*, got"):
        module.step(*whole[:2], whole[2][..., 1:], state)


@each(CAUSAL)
def test_no_tokens_leave_the_state_as_it_is(case):
    module, whole = make(case), tokens(6)
    expected, state = module.prefill(*whole)
    nothing = tokens(0)
    out, same = module.step(*nothing, state)
    assert out.shape == nothing[0].shape
    following = tokens(2, seed=1)
    torch.testing.assert_close(module.step(*following, same)[0], module.step(*following, state)[0], **EXACT)
    out, empty = module.prefill(*nothing)
    assert out.shape == nothing[0].shape
    torch.testing.assert_close(module.step(*whole, empty)[0], expected, **EXACT)


@each(CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_none_gives_outputs_of_none(case, dtype):
    module, given = make(case).to(dtype), [x.requires_grad_() for x in tokens(5, batch=0, dtype=dtype)]
    keep = torch.ones(0, 1, 1, 5, dtype=torch.bool)
    for is_causal in [False, True] if case in CAUSAL.values() else [False]:
        for count, mask in ((5, None), (5, keep), (0, keep[..., :0])):
            out = module(*(x[:, :, :count] for x in given), attn_mask=mask, is_causal=is_causal)
            assert out.shape == (0, HEADS, count, DIM)
            assert out.dtype == dtype
        module(*given, is_causal=is_causal).sum().backward()


@each(CAUSAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_none_has_a_state(case, dtype):
    module, following = make(case).to(dtype), tokens(1, batch=0, dtype=dtype)
    out, state = module.prefill(*tokens(5, batch=0, dtype=dtype))
    assert out.shape == (0, HEADS, 5, DIM)
    assert state.batch == 0
    _, other = module.prefill(*tokens(5, dtype=dtype))
    assert [(x.dtype, x.dim()) for x in state.tensors()] == [(x.dtype, x.dim()) for x in other.tensors()]
    for before in (state, other[:0], state.in_place()):
        out, after = module.step(*following, before)
        assert out.shape == following[0].shape
        assert out.dtype == dtype
        assert after.batch == 0


def numeric_options(name):
    """Return a mechanism's options that are numbers, with what their types are called."""
    makers = [kind.__init__ for kind in mechanism_class(name).__mro__ if kind.__module__.startswith("manymax")]
    options = {key: option for made in makers for key, option in inspect.signature(made).parameters.items()}
    words = {key: str(option.annotation) for key, option in options.items()}
    return {key: word for key, word in words.items() if re.search(r"\b(int|float)\b", word)}


@pytest.mark.parametrize("name", MECHANISMS)
def test_options_that_are_no_such_numbers_are_refused(name):
    options = numeric_options(name)
    assert options.keys() >= {"head_dim", "num_heads"}
    for option, words in options.items():
        wrong = [[math.nan, 1.0]] if "list" in words else [math.nan, 1.5] if "int" in words else [math.nan]
        wrong += [] if "None" in words else [None]
        for value in [*wrong, 0] if option in {"head_dim", "num_heads", "value_dim"} else wrong:
            with pytest.raises(ValueError, match=f"^{option}: expected"):
                mm.create_attention(name, **{"head_dim": DIM, "num_heads": 2, option: value})


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("size", [0, -1, 1.5, "8", None])
def test_sizes_are_whole_numbers_above_zero(name, size):
    for option in ("head_dim", "num_heads"):
        with pytest.raises(ValueError, match=f"^{option}: expected .*, got {size!r}"):
            mm.create_attention(name, **{"head_dim": DIM, "num_heads": HEADS, option: size})
