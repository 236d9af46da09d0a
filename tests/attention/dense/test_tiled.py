"""Tiles give what the formula gives, forwards and backwards, and never hold the scores."""

import itertools
from dataclasses import replace

import pytest
import torch
from dense_cases import (
    OPTIONS,
    POINTWISE,
    RATIO,
    THRESHOLD,
    Case,
    arguments,
    as_call,
    assert_accurate,
    assert_same,
    combinations,
    outcome,
    use_small_tiles,
)
from torch.utils._python_dispatch import TorchDispatchMode

import manymax as mm
from manymax.attention.dense import plan, tiled
from manymax.attention.dense.call import make_call
from manymax.attention.dense.inputs import Inputs

TILED = (*RATIO, *POINTWISE, *THRESHOLD)


@pytest.mark.parametrize("name", TILED)
def test_every_option_with_every_map(name, monkeypatch):
    computed = use_small_tiles(monkeypatch)
    for case in combinations(24, map=name, lse=name in RATIO, **({"sinks": False} if name in POINTWISE else {})):
        assert_same(case, "tiled")
    assert max(rows.start for rows, _ in computed) > 0
    assert name in THRESHOLD or max(columns.start for _, columns in computed) > 13


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "entmax15"])
@pytest.mark.parametrize(("queries", "keys"), [*itertools.product((1, 2, 63, 65), repeat=2)])
def test_odd_sizes(name, queries, keys, monkeypatch):
    use_small_tiles(monkeypatch)
    assert_same(Case(map=name, queries=queries, keys=keys, causal="bottom-right", batch=1, bias="h"), "tiled")


@pytest.mark.parametrize("name", ["softmax", "power_softmax", "relu", "sparsemax"])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (3, 1)])
def test_groups_of_heads(name, heads, key_heads, monkeypatch):
    use_small_tiles(monkeypatch)
    case = Case(map=name, heads=heads, key_heads=key_heads, batch=3, queries=19, mask="bool", sinks=name != "relu")
    assert_same(case, "tiled")


ACCURACY = (
    Case(causal="top-left", sinks=True, mask="float", bias="h"),
    Case(causal="bottom-right", window=(20, 3), softcap=4.0, scale=0.5, queries=65, keys=130, value_dim=16),
    Case(heads=2, key_heads=2, queries=63, keys=65, dim=32, value_dim=32, spread=3.0, mask="bool"),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", ACCURACY, ids=str)
@pytest.mark.parametrize("name", ["softmax", "softmax1", "softplus", "sigmoid", "squared_relu", "sparsemax"])
def test_no_less_accurate_than_the_plain_formula(name, case, dtype, monkeypatch):
    use_small_tiles(monkeypatch)
    case = replace(case, map=name, sinks=case.sinks and name not in POINTWISE)
    assert_accurate(case, "tiled", dtype)


@pytest.mark.parametrize("name", TILED)
def test_gradcheck(name, monkeypatch):
    use_small_tiles(monkeypatch, rows=4, columns=3, elements=20)
    case = Case(map=name, batch=1, heads=2, key_heads=1, queries=5, keys=7, dim=3, value_dim=2)
    case = replace(case, causal="bottom-right", bias="hk", softcap=2.0, sinks=name not in POINTWISE, lse=name in RATIO)
    given, leaves = arguments(case)

    def function(*tensors):
        return tiled.run(make_call(**{**given, **dict(zip(leaves, tensors, strict=True))}))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()), fast_mode=False, nondet_tol=0.0)


@pytest.mark.parametrize("name", TILED)
def test_extreme_scores(name, monkeypatch):
    use_small_tiles(monkeypatch)
    for spread in (1e4, 1e-4):
        assert_same(Case(map=name, spread=spread, causal="top-left", sinks=name not in POINTWISE), "tiled", 1e-9)


def test_scores_far_below_zero_do_not_lose_the_row(monkeypatch):
    use_small_tiles(monkeypatch)
    given, _ = arguments(Case(keys=40), torch.float32)
    given["bias"] = torch.linspace(-2e4, -1e4, 40).expand(1, 1, 1, 40)
    out, expected = mm.attention(**given, backend="tiled"), mm.attention(**given, backend="reference")
    torch.testing.assert_close(out, expected)
    assert out.abs().amax() > 0.1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["softmax", "softplus", "sigmoid", "sparsemax"])
def test_bad_numbers_stay_in_the_rows_that_see_them(name, bad, monkeypatch):
    use_small_tiles(monkeypatch)
    given, _ = arguments(Case(map=name, queries=20, keys=20))
    given |= {"is_causal": True, "bias": torch.zeros(1, 1, 20, 20, dtype=torch.float64)}
    given["bias"][..., 7] = bad
    expected = mm.attention(**given, backend="reference")
    got = mm.attention(**given, backend="tiled")
    assert got[:, :, :7].isfinite().all()
    torch.testing.assert_close(got, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["softmax", "softmax1", "relu", "entmax15"])
def test_hidden_keys_may_score_anything(name, monkeypatch):
    use_small_tiles(monkeypatch)
    given, leaves = arguments(Case(map=name, queries=20, keys=30, bias="qk", causal="top-left"))
    given["attn_mask"] = torch.rand(20, 30) > 0.4
    with torch.no_grad():
        given["bias"][0, 0, ~given["attn_mask"]] = torch.tensor([torch.nan, torch.inf, 1e300]).double()[
            torch.randint(3, (int((~given["attn_mask"]).sum()),))
        ]
    got = torch.autograd.grad(mm.attention(**given, backend="tiled").sum(), list(leaves.values()))
    with torch.no_grad():
        given["bias"][0, 0, ~given["attn_mask"]] = 0
    want = torch.autograd.grad(mm.attention(**given, backend="reference").sum(), list(leaves.values()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["softmax", "softmax1", "sigmoid", "sparsemax"])
@pytest.mark.parametrize("empty", ["batch", "heads", "queries", "keys", "dim", "value_dim"])
def test_empty_tensors(name, empty):
    case = Case(map=name, causal="bottom-right", bias="h", heads=2, lse=name in RATIO)
    case = replace(case, **{empty: 0}, **({"key_heads": 0} if empty == "heads" else {}))
    assert_same(case, "tiled")


@pytest.mark.parametrize("name", TILED)
def test_rows_with_nothing_to_see_are_zero_and_pass_nothing_back(name, monkeypatch):
    use_small_tiles(monkeypatch)
    got = outcome(Case(map=name, queries=40, keys=10, causal="bottom-right", lse=name in RATIO), "tiled")
    assert (got["out"][:, :, :30] == 0).all()
    assert (got["d_query"][:, :, :30] == 0).all()
    assert all(x.isfinite().all() for key, x in got.items() if key != "lse")
    if name in RATIO:
        assert (got["lse"][:, :, :30] == (0 if name == "softmax1" else -torch.inf)).all()  # softmax1 has a 1 there


def test_no_buffer_is_left_unwritten(monkeypatch):
    use_small_tiles(monkeypatch)
    for name in ("new_empty", "empty_like"):
        where = torch.Tensor if name == "new_empty" else torch
        monkeypatch.setattr(where, name, _poisoned(getattr(where, name)))
    for case in combinations(12, lse=True, map="softplus"):
        assert_same(case, "tiled")
    for empty in ("queries", "keys"):
        assert_same(Case(bias="qk", sinks=True, **{empty: 0}), "tiled")


def _poisoned(make):
    return lambda *args, **kwargs: make(*args, **kwargs).fill_(torch.nan)


class Largest(TorchDispatchMode):
    """Note the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, min(x.numel(), x.untyped_storage().nbytes() // x.itemsize))
        return result


def sizes_of(case):
    """Return the largest tensor, and what is stored for the way back, in elements."""
    given, leaves = arguments(case, torch.float32)
    call, stored = make_call(**given), []

    def pack(x):
        stored.append(x.numel())
        return x

    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out, *_ = tiled.run(call)
        torch.autograd.grad(out.sum(), list(leaves.values()))
    return largest.elements, sum(stored)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sparsemax"])
def test_memory_grows_with_tokens_and_not_with_their_square(name, monkeypatch):
    use_small_tiles(monkeypatch, rows=64, columns=64, elements=64**2)
    case = Case(map=name, batch=1, heads=2, key_heads=2, dim=4, value_dim=4, bias="k", causal="top-left")
    short, long = (sizes_of(replace(case, queries=n, keys=n)) for n in (512, 1024))
    assert long[0] <= max(2 * short[0], 64 * 64)
    assert long[0] <= 1024 * 16
    assert long[1] <= 2 * short[1]


def test_the_gradient_of_a_broadcast_bias_is_never_full(monkeypatch):
    use_small_tiles(monkeypatch, rows=64, columns=64, elements=64**2)
    for bias in ("h", "k", "hq", "b"):
        largest, _ = sizes_of(Case(batch=2, heads=2, dim=4, value_dim=4, queries=700, keys=700, bias=bias))
        assert largest <= 2 * 2 * 700 * 16


SHAPES = [(1, 1, 1, 4096, 4096), (64, 8, 2, 100, 90), (1, 32, 1, 5000, 70000), (2, 12, 4, 1, 10**6), (3, 2, 2, 7, 9)]


@pytest.mark.parametrize("full_rows", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_are_neither_large_nor_many(shape, full_rows):
    batch, heads, key_heads, queries, keys = shape
    for like, limit in ((torch.empty(()), 2**18), (torch.empty((), device="meta"), 2**24)):
        query, key = like.expand(batch, heads, queries, 8), like.expand(batch, key_heads, keys, 8)
        sizes = plan.make_sizes(Inputs(query, key, key), full_rows=full_rows)
        elements = sizes.batch * sizes.heads * (heads // key_heads) * sizes.rows * sizes.columns
        least = heads // key_heads * keys if full_rows else 0  # one row of one key head's queries is never cut
        assert elements <= max(limit, least)
        assert elements >= min(limit // 8, batch * heads * queries * keys)
        assert sizes.columns >= keys or not full_rows


def test_tiles_that_nobody_sees_are_left_out(monkeypatch):
    computed = use_small_tiles(monkeypatch, rows=16, columns=16, elements=10**6)
    case = Case(heads=1, key_heads=1, queries=160, keys=160, window=(16, 0), causal="top-left")
    tiled.run(as_call(case))
    assert len(computed) == 1 + 9 * 2  # each block of 16 rows sees 32 keys, the first one 16
    assert sum(columns.stop - columns.start for _, columns in computed) == 16 + 9 * 32


def test_dropout_is_independent_between_tiles(monkeypatch):
    computed = use_small_tiles(monkeypatch, rows=16, columns=16, elements=16**2)
    query = key = torch.zeros(2, 3, 64, 4)
    value = torch.eye(64).expand(2, 3, 64, 64)  # the output is the weights
    gone = mm.attention(query, key, value, dropout_p=0.5, backend="tiled") == 0
    tiles = gone.unflatten(2, (4, 16)).unflatten(-1, (4, 16)).transpose(3, 4).reshape(-1, 256).float()
    assert len(tiles) == len(computed) == 2 * 3 * 4 * 4
    alike = torch.cdist(tiles, tiles, p=0).fill_diagonal_(128)  # in how many places two tiles differ: 128 +- 8
    assert (alike - 128).abs().max() < 6 * 8


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sparsemax"])
def test_dropout_goes_back_through_the_same_weights(name, monkeypatch):
    use_small_tiles(monkeypatch)
    case = Case(map=name, batch=1, heads=2, key_heads=1, queries=9, keys=15, dim=3, value_dim=2)
    given, leaves = arguments(replace(case, bias="h", sinks=name != "sigmoid"))

    def function(*tensors):
        torch.manual_seed(3)
        call = make_call(**{**given, **dict(zip(leaves, tensors, strict=True))}, dropout_p=0.4)
        return tiled.run(call)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()), fast_mode=False)


@pytest.mark.parametrize("direction", [torch.ones(()).double(), torch.ones((), requires_grad=True).double()])
def test_second_derivatives_are_refused(direction):
    given, leaves = arguments(Case(bias="h"))
    out = mm.attention(**given, backend="tiled").sum()
    (d_key,) = torch.autograd.grad(out, leaves["key"], direction, create_graph=True)
    with pytest.raises(RuntimeError, match="backend 'tiled' gives no second derivatives"):
        (d_key.sum() + leaves["query"].sum()).backward()
    (d_key,) = torch.autograd.grad(mm.attention(**given, backend="reference").sum(), leaves["key"], create_graph=True)
    (second,) = torch.autograd.grad(d_key.square().sum(), leaves["query"])
    assert second.abs().sum() > 0


@pytest.mark.parametrize("asked", ["query", "value", "bias", "sinks"])
def test_one_gradient_alone(asked):
    given, leaves = arguments(Case(bias="h", sinks=True))
    given = {name: x.detach() if name in leaves and name != asked else x for name, x in given.items()}
    (got,) = torch.autograd.grad(mm.attention(**given, backend="tiled").sum(), given[asked])
    (want,) = torch.autograd.grad(mm.attention(**given, backend="reference").sum(), given[asked])
    torch.testing.assert_close(got, want)


def test_lse_alone_can_go_back():
    given, leaves = arguments(Case(lse=True, sinks=True))
    want, got = (
        torch.autograd.grad(mm.attention(**given, backend=b)[1].sum(), [leaves["key"], leaves["sinks"]])
        for b in ("reference", "tiled")
    )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": "sinkhorn"}, "a coupled map needs the full matrix"),
        ({"return_weights": True}, "return_weights asks for the full matrix"),
        ({"map": mm.create_map("sigmoid", bias=torch.zeros(()))}, "the map's bias is a tensor"),
    ],
)
def test_what_it_cannot_serve(options, message):
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match=f"backend 'tiled' cannot serve this call: {message}"):
        mm.attention(x, x, x, backend="tiled", **options)


def test_options_of_maps_reach_the_tiles():
    for name, options in OPTIONS.items():
        if name in TILED:
            default, changed = (
                outcome(Case(map=name, options={"temperature": 1.0}), "tiled"),
                outcome(Case(map=name), "tiled"),
            )
            assert options.keys() == {"alpha"} or not torch.equal(default["out"], changed["out"])
