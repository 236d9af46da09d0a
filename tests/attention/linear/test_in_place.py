"""A state that steps overwrite gives what one gives that they do not, and nothing else sees it change."""

import copy
import io
from dataclasses import replace

import pytest
import torch

import manymax as mm
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.state import InPlaceState
from manymax.attention.linear.streams import Streams
from manymax.attention.recurrent.aaren import Aaren
from manymax.kernels.native import native, status
from manymax.models.gpt import GPT
from manymax.models.layers import Cache

CASES = {
    "linear": {"conv_size": 2},
    "linear-favor": {},
    "retention": {},
    "gated-linear": {"value_dim": 24},
    "gated-delta": {"negative": True},
    "delta": {"conv_size": 0},
    "mamba2": {"conv_size": 3},
    "dsf": {},
    "lightning-attention-2": {},
    "transnormer-llm": {"lrpe": True},
    "l2vit": {},
}
MOVES = native() is not None and hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
needs_kernels = pytest.mark.skipif(not MOVES, reason=f"nothing moves on in place: {status()}")


def begin(name, dtype=torch.float32, **more):
    """Return a mechanism, its state after 4 tokens, and 3 further tokens one by one."""
    torch.manual_seed(0)
    module = mm.create_attention(name, head_dim=16, num_heads=4, **CASES[name], **more).to(dtype)
    width = CASES[name].get("value_dim", 16)
    query, key, value = (torch.randn(3, heads, 7, dim).to(dtype) for heads, dim in ((4, 16), (2, 16), (2, width)))
    with torch.no_grad():
        _, state = module.prefill(*(x[:, :, :4] for x in (query, key, value)))
    return module, state, [[x[:, :, t : t + 1] for x in (query, key, value)] for t in range(4, 7)]


def fresh(state):
    return state.apply(torch.clone).in_place()


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_steps_in_place_are_the_steps(name, dtype):
    module, state, rest = begin(name, dtype)
    kept, moving, outs = state.apply(torch.clone), fresh(state), []
    first, address = state, moving.memory.data_ptr()
    for tokens in rest:
        out, state = module.step(*tokens, state)
        found, after = module.step(*tokens, moving)
        assert after is moving
        outs.append((found, found.clone()))
        torch.testing.assert_close(found, out, rtol=0, atol=0)
    assert moving.memory.data_ptr() == address
    for one, same in outs:  # no step writes into an output of an earlier one
        torch.testing.assert_close(one, same, rtol=0, atol=0)
    for a, b in zip(moving.tensors(), state.tensors(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for a, b in zip(first.tensors(), kept.tensors(), strict=True):  # others stay as they are
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_gradients_go_through_such_a_state(name):
    module, state, rest = begin(name)
    rest = [[x.requires_grad_() for x in tokens] for tokens in rest]
    found = []
    for now in (state, fresh(state)):
        outs = []
        for tokens in rest:
            out, now = module.step(*tokens, now)  # noqa: PLW2901
            outs.append(out)
        found.append(torch.autograd.grad(torch.cat(outs, 2).square().sum(), [x for tokens in rest for x in tokens]))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert isinstance(now, InPlaceState)


@torch.no_grad()
def test_a_state_with_a_history_stays_as_it_is():
    module, state, rest = begin("retention")
    with torch.enable_grad():
        memory = state.memory.clone().requires_grad_() * 1
    moving = replace(fresh(state), memory=memory)
    _, after = module.step(*rest[0], moving)
    assert after is not moving
    torch.testing.assert_close(memory, state.memory, rtol=0, atol=0)


@needs_kernels
@torch.no_grad()
def test_several_tokens_and_other_forms_make_another_state():
    module, state, rest = begin("gated-delta")
    together = [torch.cat(x, 2) for x in zip(*rest, strict=True)]
    moving = fresh(state)
    for one in (module, begin("gated-delta", backend="recurrent")[0]):
        one.load_state_dict(module.state_dict())
        tokens = together if one is module else rest[0]
        out, after = one.step(*tokens, moving)
        assert after is not moving
        assert isinstance(after, InPlaceState)
        torch.testing.assert_close(out, one.step(*tokens, state)[0])
        torch.testing.assert_close(moving.memory, state.memory, rtol=0, atol=0)
        assert int(moving.length[0]) == 4


@needs_kernels
@torch.no_grad()
def test_what_is_taken_from_a_moving_state_stays_as_it_is():
    module, state, rest = begin("gated-delta")
    moving = fresh(state)
    taken = [moving[1:], moving[[1, 2]], moving.detach()[1:], moving.to("cpu")[1:], type(moving).cat([moving])[1:]]
    memory = io.BytesIO()
    torch.save(moving, memory)
    memory.seek(0)
    taken += [torch.load(memory)[1:], copy.deepcopy(moving)[1:]]
    for tokens in rest:
        expected, moving = module.step(*tokens, moving)
    for one in taken:
        torch.testing.assert_close(one.memory, state.memory[1:], rtol=0, atol=0)
        assert one.length.tolist() == [4, 4]
        for tokens in rest:
            out, one = module.step(*(x[1:] for x in tokens), one)  # noqa: PLW2901
        torch.testing.assert_close(out, expected[1:], rtol=1e-5, atol=1e-6)
    assert set(vars(copy.deepcopy(moving))) == {"memory", "length", "tail", "shift"}


class Bare(LinearAttention):
    """The recurrence alone, whose output is the mechanism's."""

    def streams(self, query, key, value, positions):
        return Streams(query, key, value)


@needs_kernels
@torch.no_grad()
def test_an_output_as_the_kernel_writes_it_is_the_callers():
    query, key, value = torch.randn(3, 2, 2, 6, 8).unbind()
    module = Bare(head_dim=8, num_heads=2)
    _, state = module.prefill(*(x[:, :, :1] for x in (query, key, value)))
    state, outs = state.in_place(), []
    for t in range(1, 6):
        out, after = module.step(*(x[:, :, t : t + 1] for x in (query, key, value)), state)
        assert after is state
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), module(query, key, value, is_causal=True)[:, :, 1:])


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
@torch.no_grad()
def test_compiled_steps_are_the_steps():
    module, state, rest = begin("retention")
    moving, step = fresh(state), torch.compile(module.step, backend="eager")
    for tokens in rest:
        out, moving = step(*tokens, moving)
        expected, state = module.step(*tokens, state)
        torch.testing.assert_close(out, expected)
    torch.testing.assert_close(moving.memory, state.memory)
    assert moving.length.tolist() == [7, 7, 7]
    torch._dynamo.reset()


@torch.no_grad()
def test_a_state_that_cannot_move_is_itself():
    module = Aaren(head_dim=8, num_heads=2)
    _, state = module.prefill(*torch.randn(3, 1, 2, 5, 8).unbind())
    assert state.in_place() is state


@needs_kernels
@torch.no_grad()
def test_generation_overwrites_its_states():
    torch.manual_seed(0)
    model, tokens, cache = GPT(17, attention="retention", num_kv_heads=1), torch.randint(17, (2, 9)), Cache()
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.2)
    parts = [model.features(tokens[:, :4], cache)]
    addresses = [state.memory.data_ptr() for state in cache.states.values()]
    parts += [model.features(tokens[:, t : t + 1], cache) for t in range(4, 9)]
    assert [state.memory.data_ptr() for state in cache.states.values()] == addresses
    torch.testing.assert_close(torch.cat(parts, 1), model.features(tokens), rtol=1e-4, atol=1e-4)
