"""A step of the recurrence in given memory is the step in new memory, or is not taken."""

from dataclasses import replace

import pytest
import torch
from linear_cases import DTYPES, KINDS, Case, inputs, needs_kernels
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from manymax.kernels import linear, linear_call
from manymax.kernels.native import native

pytestmark = [
    needs_kernels,
    pytest.mark.skipif(
        not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), reason="this torch has no exchange table of DLPack"
    ),
]
ONE = Case("token", delta=True, state=True, batch=2, heads=4, tokens=1, dim=24, value_dim=33)


def advance(given):
    """Return what a step makes of copies, and whether it was taken."""
    state, query, value = given["initial_state"].clone(), given["query"], given["value"]
    out = torch.full((*query.shape[:3], value.shape[3]), torch.nan, dtype=value.dtype)
    rest = {name: x for name, x in given.items() if name != "initial_state"}
    with torch.no_grad():
        done = linear.advance(**rest, state=state, out=out)
    return out, state, done


def assert_refused(given, change):
    out, state, done = advance(given | change)
    assert not done
    assert out.isnan().all()
    torch.testing.assert_close(state, (given | change)["initial_state"], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(1, 4, 2, 17), (2, 2, 1, 64), (3, 1, 5, 65), (1, 2, 1, 100)], ids=str)
def test_a_step_in_place_is_the_step(kind, dtype, sizes):
    batch, key_heads, tokens, width = sizes
    case = replace(kind, state=True, batch=batch, heads=4, key_heads=key_heads, tokens=tokens, dim=19, value_dim=width)
    given = inputs(case, dtype)
    before = given["initial_state"].clone()
    out, state = linear.attend(**given)
    found = advance(given)
    assert found[2]
    torch.testing.assert_close(found[:2], (out, state), rtol=0, atol=0)
    torch.testing.assert_close(given["initial_state"], before, rtol=0, atol=0)  # attend leaves it as it is


def test_tokens_are_read_where_they_lie():
    given = inputs(ONE)
    wanted = linear.attend(**given)
    joined = (
        torch.cat([given["query"], given["key"].repeat(1, 2, 1, 1)], 1).transpose(1, 2).contiguous().transpose(1, 2)
    )
    query, key = joined.split([4, 4], 1)
    value = torch.stack([given["value"]] * 2, 3)[:, :, :, 1]
    out, state, done = advance(given | {"query": query, "key": key[:, :2], "value": value})
    assert done
    torch.testing.assert_close((out, state), wanted, rtol=0, atol=0)


def test_autograd_sees_that_a_state_was_overwritten():
    given = inputs(ONE)
    weight, state = torch.ones((), requires_grad=True), given["initial_state"]
    loss = (weight * state).sum()
    out = torch.empty_like(given["query"][..., :1].expand(-1, -1, -1, 33).contiguous())
    rest = {name: x for name, x in given.items() if name != "initial_state"}
    with torch.no_grad():
        assert linear.advance(**rest, state=state, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: {"key": x["key"].double()},
        lambda x: {name: x[name].double() for name in ("query", "key", "value")},
        lambda x: {"query": x["query"].bfloat16()},
        lambda x: {"value": x["value"].mT.contiguous().mT[..., ::2]},
        lambda x: {"key": x["key"][..., :-1]},
        lambda x: {"key": x["key"][:1]},
        lambda x: {"key": torch.cat([x["key"][:, :1]] * 3, 1)},
        lambda x: {"query": x["query"][0]},
        lambda x: {"value": x["value"].to_sparse()},
        lambda x: {"value": torch.nn.Parameter(x["value"])},
        lambda x: {"key": x["key"].to("meta")},
        lambda x: {"beta": x["beta"].double()},
        lambda x: {"beta": x["beta"][0]},
        lambda x: {"log_decay": x["log_decay"][..., None].expand(-1, -1, -1, 24).contiguous()},  # with the delta rule
        lambda x: {"log_decay": x["log_decay"][0, :3, 0]},
        lambda x: {"initial_state": x["initial_state"].double()},
        lambda x: {"initial_state": x["initial_state"][:, :, :-1].clone()},
    ],
)
def test_other_tensors_are_refused(change):
    given = inputs(ONE)
    assert_refused(given, change(given))


def test_states_that_are_not_contiguous_are_refused():
    given = inputs(ONE)
    state = given["initial_state"].mT.contiguous().mT
    assert not state.is_contiguous()
    rest = {name: x for name, x in given.items() if name != "initial_state"}
    out = torch.zeros(2, 4, 1, 33)
    with torch.no_grad():
        assert not linear.advance(**rest, state=state, out=out)
        assert not linear.advance(**rest, state=given["initial_state"], out=out[..., :-1])
        assert not linear.advance(**rest, state=given["initial_state"], out=out.half())
        assert linear.advance(**rest, state=given["initial_state"], out=out)


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_who_watches_or_asks_for_gradients_is_not_passed_by():
    given = inputs(ONE)
    state, out = given["initial_state"], torch.zeros(2, 4, 1, 33)
    rest = {name: x for name, x in given.items() if name != "initial_state"} | {"out": out}
    assert not linear.advance(**rest, state=state)  # gradients are on
    with torch.no_grad():
        with Watching():
            assert not linear.advance(**rest, state=state)
        with forward_ad.dual_level():
            assert not linear.advance(**rest, state=state)
        seen = []
        torch.vmap(lambda key: seen.append(linear.advance(**rest | {"key": key}, state=state)) or key)(
            torch.stack([given["key"]] * 2)
        )
        assert seen == [False]
    assert not out.any()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_torch_without_the_table_takes_the_longer_way(kind, monkeypatch):
    given = inputs(replace(kind, state=True, tokens=3))
    wanted, calls = linear.attend(**given), []
    call = linear_call._call
    monkeypatch.setattr(native(), "linear_step", lambda *args: False)
    monkeypatch.setattr(linear, "_native_step", lambda: native().linear_step)
    monkeypatch.setattr(linear_call, "_call", lambda *args: calls.append(args[0]) or call(*args))
    torch.testing.assert_close(linear.attend(**given), wanted, rtol=0, atol=0)
    assert calls == [linear_call.STEP]
    assert not advance(given)[2]
