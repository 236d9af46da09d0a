"""The native kernels give what the formula gives, on every shape, stride and dtype, and say what they cannot serve."""

import threading
from dataclasses import replace

import pytest
import torch
from dense_cases import (
    POINTWISE,
    RATIO,
    Case,
    arguments,
    as_call,
    assert_accurate,
    assert_accurate_on_the_whole,
    errors,
)
from native_cases import DTYPES, HAVE, case_of, forwards, mixed, needs_kernels, poisoned

import manymax as mm
from manymax.attention.dense import native
from manymax.attention.dense.api import choice
from manymax.kernels import attention

__all__ = ["poisoned"]
pytestmark = needs_kernels
SOME = [name for name in ("softmax", "sigmoid", "sparsemax") if name in HAVE]
LENGTHS = (1, 2, 63, 65, 97, 130)


def test_every_map_that_fits_has_a_kernel():
    assert set(HAVE) == {*RATIO, *POINTWISE, "sparsemax", "entmax15"}


@pytest.mark.parametrize("name", HAVE)
@pytest.mark.usefixtures("poisoned")
def test_every_option_with_every_map(name):
    assert_accurate_on_the_whole(mixed(name, 24), "cpu", torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", HAVE)
@pytest.mark.parametrize(
    "case",
    [
        Case(causal="top-left", sinks=True, mask="float", bias="h"),
        Case(causal="bottom-right", window=(20, 3), softcap=4.0, scale=0.5, queries=65, keys=130, value_dim=16),
        Case(heads=2, key_heads=2, queries=63, keys=65, dim=32, value_dim=32, spread=3.0, mask="bool"),
    ],
    ids=str,
)
def test_no_less_accurate_than_the_plain_formula(name, case, dtype):
    # The gradient of a bias that all keys share is a sum in which all but the sink's part cancels: 1.9 times.
    times = 2.5 if case.bias == "h" else 2
    sinks = case.sinks and name not in POINTWISE
    assert_accurate(replace(case, map=name, options=case_of(name).options, sinks=sinks), "cpu", dtype, times)


def test_a_row_of_tiny_softplus_weights():
    key = torch.tensor([[9.7], [9.9]])[None, None]  # softplus(-97) is 7e-43, a subnormal number
    out = mm.attention(
        torch.full((1, 1, 1, 1), -10.0), key, torch.eye(2)[None, None], scale=1.0, map="softplus", backend="cpu"
    )
    expected = torch.softmax(torch.tensor([-97.0, -99.0]), 0)
    torch.testing.assert_close(out[0, 0, 0], expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("queries", LENGTHS)
@pytest.mark.parametrize("name", SOME)
def test_odd_lengths(name, queries):
    cases = [
        case_of(name, queries=queries, keys=keys, causal=causal, batch=1, heads=2, key_heads=1, dim=16, bias="qk")
        for keys in LENGTHS[1:]
        for causal in (None, "top-left", "bottom-right")
    ]
    assert_accurate_on_the_whole(cases, "cpu", torch.float32)


@pytest.mark.parametrize("name", HAVE)
def test_a_single_key(name):
    """The plain formula's rounding cancels here, so that there is nothing to compare ours with but its size."""
    for queries in LENGTHS:
        case = case_of(name, queries=queries, keys=1, causal="top-left", sinks=True, precision=torch.float32)
        for ours, _, exact in errors(case, "cpu", torch.float32).values():
            assert ours.abs().max() <= 2e-6 * max(1.0, exact.abs().max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "value_dim"), [(1, 1), (2, 7), (3, 64), (64, 3), (80, 96), (130, 1), (200, 197)])
def test_odd_widths(dim, value_dim, dtype):
    case = Case(queries=35, keys=70, dim=dim, value_dim=value_dim, lse=True, causal="top-left", batch=1)
    assert_accurate(case, "cpu", dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [2, 4, 7])
def test_groups_of_heads(groups, dtype):
    case = Case(heads=2 * groups, key_heads=2, batch=3, queries=19, mask="bool", sinks=True, lse=True, bias="h")
    assert_accurate(case, "cpu", dtype)


def as_views(case, dtype):
    """Return the same inputs as other views of memory."""
    given, _ = arguments(replace(case, precision=dtype), dtype)
    query, key, value = (given[name].detach() for name in ("query", "key", "value"))
    yield query.mT.contiguous().mT, key.mT.contiguous().mT, value.mT.contiguous().mT  # the last stride is not 1
    packed = torch.cat([query, query, query], -1)  # one of three in a row
    yield packed[..., query.shape[-1] : 2 * query.shape[-1]], key, value
    cache = torch.full((*key.shape[:2], 3 * key.shape[2], key.shape[3]), torch.nan, dtype=dtype)  # a cache, partly full
    cache[:, :, 5 : 5 + key.shape[2]] = key
    yield query, cache[:, :, 5 : 5 + key.shape[2]], value
    flipped = (x.flip(2).contiguous() for x in (key, value))  # other tokens first in memory
    yield query, *(x[:, :, torch.arange(x.shape[2] - 1, -1, -1)] for x in flipped)
    tokens_first = (x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3) for x in (query, key, value))
    yield tuple(tokens_first)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_strides(dtype):
    case = Case(queries=40, keys=37, dim=24, value_dim=18, causal="bottom-right", lse=True)
    want = forwards(case, dtype)
    for query, key, value in as_views(case, dtype):
        got = forwards(case, dtype, query=query, key=key, value=value)
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_expanded_keys_are_read_in_place(dtype):
    query = torch.randn(3, 4, 20, 16).to(dtype)
    key, value = torch.randn(2, 1, 1, 30, 16).to(dtype)
    got = mm.attention(query, key, value, backend="cpu")
    assert torch.equal(got, mm.attention(query, key.repeat(3, 4, 1, 1), value.repeat(3, 4, 1, 1), backend="cpu"))


def test_the_output_is_laid_out_as_the_query():
    x = torch.randn(2, 7, 3, 8)
    for query, stride in ((x, x.stride()), (x.transpose(1, 2), x.transpose(1, 2).stride())):
        for leaf in (query, query.detach().requires_grad_()):
            out = mm.attention(leaf, query, query, backend="cpu")
            assert out.stride() == stride
    many = torch.randn(2, 7, 3, 3, 8).unbind(2)
    out = mm.attention(*(x.transpose(1, 2) for x in many), backend="cpu")
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("name", HAVE)
def test_threads_and_repetition_change_nothing(name, threads):
    case = case_of(name, queries=330, keys=350, causal="top-left", batch=1, bias="h")  # enough work to wake three
    results = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(forwards(case))
    for got in results[1:]:
        torch.testing.assert_close(got, results[0], rtol=1e-6, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[3], strict=True))


@pytest.fixture
def threads():
    """Restore the number of threads."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def test_calls_from_several_threads():
    cases = [case_of("softmax", queries=70 + i, keys=90, seed=i, causal="top-left") for i in range(6)]
    want = [forwards(case) for case in cases]
    wrong = []

    def work(case, expected):
        for _ in range(10):
            wrong.extend(1 for a, b in zip(forwards(case), expected, strict=True) if not torch.equal(a, b))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(cases, want, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float64}, r"it takes float32, bfloat16 and float16, not torch\.float64"),
        ({"return_weights": True}, "return_weights asks for the full matrix"),
        ({"map": "sinkhorn"}, "there is no kernel for Sinkhorn"),
        ({"map": "topk_softmax"}, "there is no attention kernel for topk_softmax"),
        ({"map": mm.create_map("softmax", temperature=torch.ones(()))}, "the map's temperature is a tensor"),
        ({"map": mm.create_map("power_softmax", length_agnostic=True)}, "has no length_agnostic form"),
        ({"map": mm.create_map("taylor_softmax", order=66)}, "takes powers up to 64"),
        ({"keys": 0}, "there is nothing to compute with an empty tensor"),
        ({"subclass": True}, "a subclass of torch.Tensor"),
    ],
    ids=str,
)
def test_what_it_cannot_serve(options, message):
    class Subclass(torch.Tensor):
        pass

    options = dict(options)
    dtype = options.pop("dtype", torch.float32)
    query, key = (torch.zeros(1, 1, n, 4, dtype=dtype) for n in (2, options.pop("keys", 3)))
    query = query.as_subclass(Subclass) if options.pop("subclass", False) else query
    with pytest.raises(ValueError, match=f"backend 'cpu' cannot serve this call: .*{message}"):
        mm.attention(query, key, key, backend="cpu", **options)


@pytest.fixture
def forgetful():
    """Forget which maps have kernels, before and after."""
    native._remembered.cache_clear()
    yield
    native._remembered.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_kernels_it_says_so(monkeypatch):
    call = as_call(Case(), torch.float32)
    assert native.refusal(call) is None
    native._remembered.cache_clear()
    monkeypatch.setattr(attention, "native", lambda: None)
    monkeypatch.setattr(attention, "status", lambda: "no compiler was found")
    assert native.refusal(call) == "no compiler was found"
    assert choice(*call.inputs[:3], enable_gqa=True).name == "sdpa"
