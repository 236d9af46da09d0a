"""The laws that every mechanism with a rule of its own obeys, whatever the rule."""

import copy
import dataclasses
import io
import pickle
import re

import pytest
import torch
from mechanism_cases import CASES, CAUSAL, EXACT, attempt, each, make, tokens

from manymax.attention.cache import TokenCache
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.turned import TurnedLinear
from manymax.attention.registry import mechanism_class


def takes(case, **options):
    """Return whether the mechanism of a case has all of these options, and its others leave them a meaning."""
    try:
        make(case, **options)
    except (TypeError, ValueError):
        return False
    return True


@each(CASES)
def test_plain_arguments_are_enough(case):
    query, key, value = tokens(9)
    out = make(case)(query, key, value)
    assert out.shape == query.shape
    assert out.isfinite().all()


@each(CASES)
def test_a_module_is_pickled_and_copied_whole(case):
    module, given = make(case), tokens(9)
    for same in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(same(*given), module(*given))
        if case in CAUSAL.values():
            assert torch.equal(same(*given, is_causal=True), module(*given, is_causal=True))


@each(CASES)
def test_padding_takes_no_part_if_all_tokens_see_each_other(case):
    module, (query, key, value) = make(case), tokens(9)
    keep = torch.tensor([[False, False, True, True, True, True, True, False, False]] * 2)
    for x in (query, key, value):
        x[:, :, :2] = torch.nan
        x[:, :, 7:] = torch.inf
    inner = [x[:, :, 2:7].clone().requires_grad_() for x in (query, key, value)]
    outer = [x.clone().requires_grad_() for x in (query, key, value)]
    expected = module(*inner)
    out = module(*outer, attn_mask=keep[:, None, None])
    torch.testing.assert_close(out[:, :, 2:7], expected, **EXACT)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), inner)
    grads = torch.autograd.grad((out[:, :, 2:7] * weights).sum(), outer)
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad[:, :, 2:7], want, **EXACT)
        assert (grad[:, :, :2] == 0).all()
        assert (grad[:, :, 7:] == 0).all()


@each(CASES)
def test_fewer_key_heads_are_repeated_ones(case):
    module, (query, key, value) = make(case), tokens(7, kv_heads=2)
    repeated = module(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))
    torch.testing.assert_close(module(query, key, value), repeated, **EXACT)


@each(CASES)
def test_sequences_in_one_row_do_not_meet(case):
    module, row = make(case), tokens(12, batch=1)
    bounds = torch.tensor([0, 5, 5, 6, 12])
    forms = [False, True] if case in CAUSAL.values() else [False]
    for is_causal in forms:
        parts = [module(*(x[:, :, a:b] for x in row), is_causal=is_causal) for a, b in ((0, 5), (5, 6), (6, 12))]
        out = module(*row, is_causal=is_causal, cu_seqlens=bounds)
        torch.testing.assert_close(out, torch.cat(parts, 2), **EXACT)


@each(CASES)
def test_bfloat16_is_close_to_float32(case):
    module, low = make(case).float(), tokens(33, dtype=torch.bfloat16)
    expected = module(*(x.float() for x in low))
    out = module.to(torch.bfloat16)(*low)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.05 * expected.norm()


@each(CASES)
def test_bfloat16_loses_no_more_at_the_last_tokens_than_at_the_first_ones(case):
    module, low = make(case).to(torch.bfloat16), tokens(200, batch=1, dtype=torch.bfloat16)
    exact = copy.deepcopy(module).double()
    for is_causal in [False, True] if case in CAUSAL.values() else [False]:
        with torch.no_grad():
            expected = exact(*(x.double() for x in low), is_causal=is_causal)
            apart = module(*low, is_causal=is_causal) - expected
        first, last = (
            apart[:, :, part].norm(dim=(2, 3)) / expected[:, :, part].norm(dim=(2, 3))
            for part in (slice(None, 32), slice(-32, None))
        )
        assert (last <= (2 * first).clamp(min=0.05)).all(), (first, last)


@each(CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_shortens_the_tokens_and_nothing_else(case, dtype):
    module, given = (
        make(case).to(torch.promote_types(dtype, torch.float32)),
        [x.requires_grad_() for x in tokens(9, dtype=dtype)],
    )
    short = given if dtype == torch.float64 else [x.to(torch.bfloat16) for x in given]
    forms = [module]
    if case in CAUSAL.values():
        forms.append(lambda *x: module(*x, is_causal=True))
        forms.append(lambda *x: module.step(*x, module.prefill(*(y.detach() for y in x))[1])[0])
    for form in forms:
        expected = form(*short)
        with torch.autocast("cpu", torch.bfloat16):
            out = form(*given)
        assert out.dtype == short[0].dtype
        assert torch.equal(out, expected)
        weights = torch.randn_like(expected)
        wanted, grads = (torch.autograd.grad((x * weights).sum(), given) for x in (expected, out))
        assert all(torch.equal(*pair) for pair in zip(grads, wanted, strict=True))


@each(CASES)
def test_gradients(case):
    module = make(case)
    inputs = [x.requires_grad_() for x in tokens(4, batch=1)]
    for is_causal in [False, True] if case in CAUSAL.values() else [False]:
        assert torch.autograd.gradcheck(lambda *x, c=is_causal: module(*x, is_causal=c), inputs, fast_mode=True)


@each({label: case for label, case in CASES.items() if case not in CAUSAL.values()})
def test_no_causal_form_is_said(case):
    with pytest.raises(ValueError, match=r"is_causal: .* no causal form"):
        make(case)(*tokens(3), is_causal=True)


@each(CAUSAL)
def test_a_sequence_may_be_split_anywhere(case):
    module, whole = make(case), [x.requires_grad_() for x in tokens(21)]
    expected = module(*whole, is_causal=True)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), whole)
    for split in (1, 8, 20):
        first, state = module.prefill(*(x[:, :, :split] for x in whole))
        rest, state = module.step(*(x[:, :, split:] for x in whole), state)
        out = torch.cat([first, rest], 2)
        torch.testing.assert_close(out, expected, **EXACT)
        for grad, want in zip(torch.autograd.grad((out * weights).sum(), whole), wanted, strict=True):
            torch.testing.assert_close(grad, want, **EXACT)


FORMS = [
    {"chunk_size": 1},
    {"chunk_size": 7},
    {"chunk_size": 40},
    {"backend": "recurrent"},
    {"backend": "chunked"},
    {"backend": "chunked", "chunk_size": 5},
    {"backend": "quadratic"},
]


@each({label: case for label, case in CAUSAL.items() if takes(case, chunk_size=1, backend="recurrent")})
def test_chunks_and_backends_change_nothing(case):
    whole = [x.requires_grad_() for x in tokens(21)]

    def run(**options):
        module = make(case, **options)
        first, before = module.prefill(*(x[:, :, :15] for x in whole))
        rest, state = module.step(*(x[:, :, 15:] for x in whole), before)
        out = torch.cat([first, rest], 2)
        kept = [x for x in [*before.tensors(), *state.tensors()] if x.is_floating_point()]
        wanted = [*whole, *(x for x in module.parameters() if x.requires_grad)]
        total = (out * weights).sum() + sum((x * x).sum() for x in kept)
        return [out, *kept], torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)

    weights = torch.randn(whole[2].shape, dtype=torch.float64)
    expected, wanted = run()
    for options in FORMS:
        found, grads = run(**options)
        for x, want in zip([*found, *grads], [*expected, *wanted], strict=True):
            torch.testing.assert_close(x, want, **EXACT)


@each({label: case for label, case in CAUSAL.items() if not takes(case, chunk_size=1, backend="recurrent")})
def test_chunks_and_backends_are_refused_where_there_are_none(case):
    assert not issubclass(mechanism_class(case[0]), (LinearAttention, TurnedLinear))
    for option in ({"chunk_size": 7}, {"backend": "chunked"}):
        with pytest.raises((TypeError, ValueError), match=next(iter(option))):
            make(case, **option)


@each(CAUSAL)
def test_token_by_token_equals_all_at_once(case):
    module, whole = make(case), tokens(11, kv_heads=2)
    out, state = module.prefill(*(x[:, :, :1] for x in whole))
    outs = [out]
    for t in range(1, 11):
        out, state = module.step(*(x[:, :, t : t + 1] for x in whole), state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), module(*whole, is_causal=True), **EXACT)


@each(CAUSAL)
def test_no_output_depends_on_a_later_token(case):
    module, whole = make(case), [x.requires_grad_() for x in tokens(9)]
    out = module(*whole, is_causal=True)
    for x, grad in zip(whole, torch.autograd.grad(out[:, :, 4].sum(), whole), strict=True):
        assert (grad[:, :, 5:] == 0).all()
        assert (grad[:, :, :5] != 0).any() == (x is not whole[0] or getattr(module, "reads_query", True))


@each(CAUSAL)
def test_padding_changes_neither_outputs_nor_the_state(case):
    module, whole = make(case), tokens(8)
    expected, state = module.prefill(*whole)
    following = tokens(2, seed=1)
    then, _ = module.step(*following, state)
    for left, right in ((3, 0), (0, 3), (2, 1)):
        padded = [torch.nn.functional.pad(x, (0, 0, left, right), value=torch.nan) for x in whole]
        keep = torch.nn.functional.pad(torch.ones(1, 1, 1, 8, dtype=torch.bool), (left, right))
        out, state = module.prefill(*padded, attn_mask=keep)
        torch.testing.assert_close(out[:, :, left : left + 8], expected, **EXACT)
        torch.testing.assert_close(module.step(*following, state)[0], then, **EXACT)
        out = module(*padded, attn_mask=keep, is_causal=True)
        torch.testing.assert_close(out[:, :, left : left + 8], expected, **EXACT)


@each(CAUSAL)
def test_padding_may_differ_from_sequence_to_sequence(case):
    module, whole = make(case), tokens(8)
    keep = torch.arange(8) >= torch.tensor([[0], [5]])
    out = module(*whole, attn_mask=keep[:, None, None], is_causal=True)
    for i, start in enumerate((0, 5)):
        alone = module(*(x[i : i + 1, :, start:] for x in whole), is_causal=True)
        torch.testing.assert_close(out[i : i + 1, :, start:], alone, **EXACT)


@each(CAUSAL)
def test_a_state_is_saved_indexed_joined_and_moved(case):
    module, whole = make(case), tokens(6, batch=3)
    _, state = module.prefill(*whole)
    following = tokens(1, batch=3, seed=1)
    expected, _ = module.step(*following, state)
    kind = type(state)
    assert state.batch == 3
    assert state.nbytes == sum(x.numel() * x.element_size() for x in state.tensors())
    memory = io.BytesIO()
    torch.save(state, memory)
    memory.seek(0)
    for same in (torch.load(memory), kind.cat([state[:1], state[[1, 2]]]), state.to("cpu").detach()):
        torch.testing.assert_close(module.step(*following, same)[0], expected, **EXACT)
    picked, _ = module.step(*(x[1:] for x in following), state[torch.tensor([False, True, True])])
    torch.testing.assert_close(picked, expected[1:], **EXACT)
    with pytest.raises(TypeError, match=r"index: expected a slice"):
        state[0]


@each(CAUSAL)
def test_states_of_other_lengths_are_joined_or_refused(case):
    module, following = make(case), tokens(1, batch=3, seed=1)
    _, short = module.prefill(*tokens(5, batch=1))
    _, long = module.prefill(*tokens(9))
    joined, refusal = attempt(type(short).cat, [short, long])
    if refusal is None:
        first, _ = module.step(*(x[:1] for x in following), short)
        second, _ = module.step(*(x[1:] for x in following), long)
        torch.testing.assert_close(module.step(*following, joined)[0], torch.cat([first, second]), **EXACT)
    else:
        shapes = r"got \(1, 4, (\d), \d+\) and \(2, 4, (\d), \d+\)"
        found = re.fullmatch(f"states: expected (key|open) of one shape but for the batch, {shapes}", refusal)
        assert found[2] != found[3]


def test_states_of_modules_with_and_without_a_convolution_are_not_joined():
    states = [make(("linear", {"conv_size": size})).prefill(*tokens(5))[1] for size in (0, 3)]
    for pair in (states, states[::-1]):
        with pytest.raises(ValueError, match=r"states: expected tail of one shape but for the batch, got .*None"):
            type(pair[0]).cat(pair)


@each(CAUSAL)
@pytest.mark.parametrize("moved", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_in_another_dtype_goes_on(case, dtype, moved):
    module = make(case).float()
    _, state = module.prefill(*tokens(7, dtype=dtype))
    following, last = (tokens(count, seed=count, dtype=dtype) for count in (2, 1))
    outs, after = zip(*(module.step(*following, one) for one in (state, state.to(moved))), strict=True)
    then = [module.step(*last, one)[0] for one in after]
    at_once = [module.step(*last, one.in_place())[0] for one in (state, state.to(moved))]
    for expected, out in (outs, then, at_once):
        assert out.dtype == dtype
        loose = torch.bfloat16 in {dtype, moved}
        assert (out - expected).float().norm() < (0.03 if loose else 1e-5) * expected.float().norm()


@each(CAUSAL)
def test_low_precision_tokens_leave_a_float32_state(case):
    _, state = make(case).to(torch.bfloat16).prefill(*tokens(5, dtype=torch.bfloat16))
    kept = {"key", "value"} if isinstance(state, TokenCache) else {"tail"}  # tokens as they came, not sums
    for one in dataclasses.fields(state):
        x = getattr(state, one.name)
        if isinstance(x, torch.Tensor) and x.is_floating_point() and one.name not in kept:
            assert x.dtype == torch.float32, one.name
