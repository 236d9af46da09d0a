"""torch's kernel gives what the formula gives wherever the backend says that it does."""

from dataclasses import replace

import pytest
import torch
from dense_cases import Case, arguments, as_call, assert_accurate, assert_same, combinations, outcome
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import manymax as mm
from manymax.attention.dense import sdpa


@pytest.mark.parametrize("name", ["softmax", "softmax1"])
@pytest.mark.parametrize("temperature", [1.0, 2.3])
def test_every_option(name, temperature):
    for case in combinations(60, map=name, softcap=None, options={"temperature": temperature}):
        assert_same(case, "sdpa")


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("name", ["softmax", "softmax1"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (2, 65), (63, 2), (65, 63), (63, 65), (1, 63)])
def test_causal_without_a_mask(name, sinks, queries, keys):
    for causal in ("top-left", "bottom-right"):
        assert_same(Case(map=name, sinks=sinks, queries=queries, keys=keys, causal=causal, value_dim=12), "sdpa")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["softmax", "softmax1"])
@pytest.mark.parametrize(
    "case",
    [
        Case(causal="top-left", sinks=True, spread=3.0),
        Case(causal="bottom-right", sinks=True, mask="bool", scale=0.02, dim=32),
        Case(window=(9, 2), bias="h", queries=65, keys=63),
    ],
    ids=str,
)
def test_no_less_accurate_than_the_plain_formula(name, case, dtype):
    # torch's own kernel for CPUs errs up to 3.7 times as much as the plain formula in the gradient of the values.
    assert_accurate(replace(case, map=name, options={"temperature": 1.0}), "sdpa", dtype, times=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sink_keeps_more_digits_than_one_coordinate_has(dtype):
    zeros = torch.zeros(1, 2, 3, 4, dtype=dtype)
    sinks = torch.tensor([5.013, -3.007])
    out = mm.attention(zeros, zeros, torch.ones_like(zeros), sinks=sinks, backend="sdpa")
    want = 3 / (3 + sinks.double().exp())
    error = (out.double()[0, :, 0, 0] - want).abs() / want
    assert error.max() < 0.6 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["softmax", "softmax1"])
def test_a_sink_of_minus_infinity_is_not_there(name):
    given, leaves = arguments(Case(map=name, sinks=True, queries=40, keys=10, causal="bottom-right"))
    with torch.no_grad():
        given["sinks"][1] = -torch.inf
    got = torch.autograd.grad(mm.attention(**given, backend="sdpa").sum(), list(leaves.values()))
    want = torch.autograd.grad(mm.attention(**given, backend="reference").sum(), list(leaves.values()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    assert got[-1][1] == 0


@pytest.mark.parametrize(
    "case", [Case(causal="top-left"), Case(causal="top-left", sinks=True), Case(mask="bool")], ids=str
)
def test_the_fused_kernel_serves(case):
    call = as_call(case, torch.float32)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises if this kernel cannot
        sdpa.run(call)
    assert sdpa.is_fused(call)
    assert not sdpa.makes_mask(call)


def test_what_is_not_fused():
    assert not sdpa.is_fused(as_call(Case(bias="h")))
    with torch.no_grad():
        assert sdpa.is_fused(as_call(Case(bias="h")))
    assert sdpa.makes_mask(as_call(Case(window=4)))
    assert sdpa.makes_mask(as_call(Case(causal="bottom-right")))
    assert not sdpa.makes_mask(as_call(Case(causal="bottom-right", queries=1)))
    assert not sdpa.makes_mask(as_call(Case(window=70)))


@pytest.mark.parametrize("mask", ["bool", "float", None])
def test_rows_with_nothing_to_see_are_zero_and_pass_nothing_back(mask):
    got = outcome(Case(mask=mask, queries=40, keys=10, causal="bottom-right", bias="k"), "sdpa")
    assert (got["out"][:, :, :30] == 0).all()
    assert (got["d_query"][:, :, :30] == 0).all()
    assert all(x.isfinite().all() for x in got.values())


@pytest.mark.parametrize("empty", ["batch", "heads", "queries", "keys", "dim", "value_dim"])
@pytest.mark.parametrize("sinks", [False, True])
def test_empty_tensors(empty, sinks):
    for causal in (None, "top-left", "bottom-right"):
        case = Case(causal=causal, heads=2, sinks=sinks)
        assert_same(replace(case, **{empty: 0}, **({"key_heads": 0} if empty == "heads" else {})), "sdpa")


@pytest.mark.parametrize("spread", [1e4, 1e-4])
def test_extreme_scores(spread):
    for sinks in (False, True):
        assert_same(Case(spread=spread, causal="top-left", sinks=sinks), "sdpa", 1e-9)


def test_dropout_is_torchs():
    given, _ = arguments(Case(heads=2, value_dim=8), torch.float32)
    torch.manual_seed(5)
    got = mm.attention(**given | {"map": "softmax"}, dropout_p=0.4, backend="sdpa")
    torch.manual_seed(5)
    want = F.scaled_dot_product_attention(given["query"], given["key"], given["value"], dropout_p=0.4)
    assert torch.equal(got, want)


@pytest.mark.parametrize("extra", [{"sinks": torch.zeros(4)}, {"map": "softmax1"}, {"is_causal": True}])
def test_dropout_keeps_the_mean(extra):
    query, key, value = torch.randn(3, 64, 4, 20, 8).unbind()
    whole = mm.attention(query, key, value, **extra)
    parts = [mm.attention(query, key, value, dropout_p=0.3, backend="sdpa", **extra) for _ in range(100)]
    difference = torch.stack(parts).mean(0) - whole
    assert difference.abs().mean() < 0.06


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": "sigmoid"}, "torch computes softmax alone"),
        ({"map": mm.create_map("softmax", temperature=torch.ones(()))}, "the temperature is a tensor"),
        ({"softcap": 2.0}, "torch has no softcap"),
        ({"return_weights": True}, "torch does not return the weights"),
        ({"return_lse": True}, "torch does not return the log-sum-exp"),
    ],
)
def test_what_it_cannot_serve(options, message):
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match=f"backend 'sdpa' cannot serve this call: {message}"):
        mm.attention(x, x, x, backend="sdpa", **options)


def test_half_precision_masks_that_torch_would_round_are_refused():
    x = torch.zeros(1, 1, 2, 4, dtype=torch.bfloat16)
    half, single = torch.zeros(2, 2, dtype=torch.bfloat16), torch.zeros(2, 2)
    warm = mm.create_map("softmax", temperature=2.0)
    mm.attention(x, x, x, bias=half, backend="sdpa")
    for options in ({"bias": single}, {"bias": half, "attn_mask": half}, {"bias": half, "map": warm}):
        with pytest.raises(ValueError, match="torch would round what is added"):
            mm.attention(x, x, x, backend="sdpa", **options)
        mm.attention(x, x, x, **options)
