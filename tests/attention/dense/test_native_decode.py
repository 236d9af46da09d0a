"""Few queries against many keys: the same numbers as the kernel for many queries, and the design's rule of accuracy."""

from dataclasses import replace

import pytest
import torch
from dense_cases import RATIO, Case, arguments, assert_accurate_on_the_whole
from native_cases import DTYPES, HAVE, case_of, errors_forwards, forwards, mixed, needs_kernels, poisoned

import manymax as mm
from manymax.attention.dense import native
from manymax.kernels import attention_call

__all__ = ["poisoned"]
pytestmark = [needs_kernels, pytest.mark.usefixtures("few")]


@pytest.fixture
def few(monkeypatch):
    """Send every call to the kernel for few queries; return the numbers of the kernels that ran."""
    ran, call = [], attention_call.call_kernel
    monkeypatch.setattr(native, "FEW", 10**6)
    monkeypatch.setattr(
        attention_call, "call_kernel", lambda kernel, what, *rest: ran.append(what) or call(kernel, what, *rest)
    )
    return ran


def assert_accurate(cases, dtype):
    assert_accurate_on_the_whole(cases, "cpu", dtype, errors=errors_forwards)


@pytest.mark.parametrize("name", HAVE)
@pytest.mark.usefixtures("poisoned")
def test_every_option_with_every_map(name, few):
    assert_accurate([replace(case, queries=q) for case in mixed(name, 24) for q in (1, 3, 8)], torch.float32)
    assert set(few) == {attention_call.FEW}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", HAVE)
def test_a_long_cache(name, dtype):
    cases = (
        case_of(name, queries=1, keys=3001, heads=8, key_heads=2, dim=64, value_dim=64, batch=1),
        case_of(name, queries=2, keys=1023, heads=4, key_heads=4, dim=40, value_dim=33, causal="bottom-right"),
        case_of(name, queries=1, keys=2048, heads=7, key_heads=1, window=(300, 0), causal="bottom-right", sinks=True),
        case_of(name, queries=3, keys=700, mask="bool", bias="hk", softcap=5.0, sinks=True),
    )
    assert_accurate(cases, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [1, 3, 64, 130, 200])
def test_odd_sizes(dim, dtype):
    lengths = (1, 2, 63, 65, 97, 130)
    assert_accurate([Case(queries=1, keys=n, dim=dim, value_dim=dim + 1, lse=True) for n in lengths], dtype)


@pytest.mark.parametrize("name", HAVE)
def test_threads_and_repetition_change_nothing(name):
    case = case_of(name, queries=1, keys=5000, heads=4, key_heads=2, dim=32, batch=1)
    count = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(forwards(case))
    finally:
        torch.set_num_threads(count)
    for got in results[1:]:
        torch.testing.assert_close(got, results[0], rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[3], strict=True))


@pytest.mark.parametrize("name", HAVE)
def test_queries_that_see_nothing_get_zeros(name):
    case = case_of(name, queries=6, keys=3, causal="bottom-right")
    out, *lse = forwards(case)
    assert (out[:, :, :3] == 0).all()
    if name in RATIO:
        want = mm.attention(**arguments(case)[0], backend="reference")[1]
        torch.testing.assert_close(lse[0].double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", HAVE)
def test_bad_numbers_stay_in_the_rows_that_see_them(name, bad):
    given, _ = arguments(case_of(name, queries=4, keys=500, lse=False), torch.float32)
    given |= {"attn_mask": torch.ones(4, 500, dtype=torch.bool), "bias": torch.zeros(1, 1, 1, 500)}
    given["attn_mask"][:2, 300] = False
    given["bias"][..., 300] = bad
    with torch.no_grad():
        got, want = (mm.attention(**given, backend=backend) for backend in ("cpu", "reference"))
    torch.testing.assert_close(got[:, :, :2], want[:, :, :2], rtol=1e-5, atol=1e-5)
    assert torch.equal(got.isnan().any(-1), want.isnan().any(-1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keys_and_values_are_read_where_they_lie(dtype):
    """A cache in the layout (batch, tokens, heads, dim), only its first part in use."""
    case = Case(queries=1, keys=400, dim=32, value_dim=32, lse=True)
    want = forwards(case, dtype)
    given, _ = arguments(replace(case, precision=dtype), dtype)
    views = {}
    for name in ("key", "value"):
        cache = torch.full((2, 600, 2, 32), torch.nan, dtype=dtype)
        cache[:, :400] = given[name].detach().transpose(1, 2)
        views[name] = cache[:, :400].transpose(1, 2)
    torch.testing.assert_close(forwards(case, dtype, **views), want, rtol=0, atol=0)


def test_gradients_take_the_other_kernel(few):
    given, leaves = arguments(Case(queries=1), torch.float32)
    torch.autograd.grad(mm.attention(**given, backend="cpu").sum(), list(leaves.values()))
    assert few == [attention_call.FORWARD, attention_call.BACKWARD]


def test_the_number_of_queries_decides(few, monkeypatch):
    monkeypatch.setattr(native, "FEW", 8)
    for queries, kernel in ((2, attention_call.FEW), (3, attention_call.FORWARD)):
        few.clear()
        forwards(Case(queries=queries, heads=8, key_heads=2))
        assert few == [kernel]
