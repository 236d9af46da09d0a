"""What `explain` says is what runs, and every name gives the same numbers or says why not."""

import dataclasses

import pytest
import torch
from dense_cases import Case, arguments, combinations
from native_cases import needs_kernels

import manymax as mm
from manymax.attention.dense import dispatch
from manymax.attention.dense.api import choice

NAMES = ["cpu", "reference", "sdpa", "tiled", "triton"]


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests():
    torch._dynamo.reset()


@pytest.fixture
def ran(monkeypatch):
    """Return the names of the backends that ran."""
    served = []
    for name, entry in dispatch.BACKENDS.items():

        def run(call, name=name, entry=entry):
            served.append(name)
            return entry.run(call)

        monkeypatch.setitem(dispatch.BACKENDS, name, dataclasses.replace(entry, run=run))
    return served


@pytest.fixture
def no_kernels(monkeypatch):
    """Leave out the native kernels, which serve first where they can."""
    entry = dataclasses.replace(dispatch.BACKENDS["cpu"], refusal=lambda _: "switched off")
    monkeypatch.setitem(dispatch.BACKENDS, "cpu", entry)


def shaped(*shape, dtype=torch.float32, keys=None, requires_grad=False):
    query = torch.zeros(*shape, dtype=dtype, requires_grad=requires_grad)
    key = query if keys is None else torch.zeros(*shape[:2], keys, shape[3], dtype=dtype)
    return query, key, key


def test_explain_agrees_with_what_runs(ran):
    maps = ("softmax", "softmax1", "sigmoid", "stablemax", "entmax15", "sinkhorn")
    for kind, case in zip(maps * 5, combinations(30), strict=True):
        sinks = case.sinks and kind not in {"sigmoid", "sinkhorn"}
        given, _ = arguments(dataclasses.replace(case, map=kind, sinks=sinks), torch.float32)
        ran.clear()
        mm.attention(**given)
        text, chosen = mm.explain(**given), choice(**given)
        assert ran == [chosen.name]
        assert text.startswith(f"{chosen.name} serves this call: ")
        assert sorted(line.split()[0] for line in text.splitlines()) == NAMES
        for name in NAMES:
            ran.clear()
            line = next(line for line in text.splitlines() if line.startswith(name))
            if " cannot: " in line:
                with pytest.raises(ValueError, match=f"backend '{name}' cannot serve this call: "):
                    mm.attention(**given, backend=name)
                assert ran == []
            else:
                mm.attention(**given, backend=name)
                assert ran == [name]
                assert choice(**given, backend=name).name == name


@pytest.mark.parametrize(
    ("inputs", "options", "want"),
    [
        (shaped(1, 8, 2048, 8), {}, "sdpa"),
        (shaped(1, 8, 2048, 8), {"is_causal": True}, "sdpa"),
        (shaped(1, 8, 256, 8), {"window": 9}, "sdpa"),
        (shaped(1, 8, 512, 8), {"window": 9}, "sdpa"),
        (shaped(1, 8, 513, 8), {"window": (9, None)}, "tiled"),
        (shaped(1, 1, 4096, 8), {"window": (None, 9)}, "tiled"),
        (shaped(1, 1, 2048, 8), {"window": (None, 9)}, "sdpa"),
        (shaped(1, 8, 1, 8, keys=4096), {"is_causal": True, "causal_align": "bottom-right"}, "sdpa"),
        (shaped(1, 8, 1, 8, keys=4096), {"map": "softmax1"}, "reference"),
        (shaped(1, 8, 15, 8, keys=4096), {"sinks": torch.zeros(8)}, "tiled"),
        (shaped(1, 8, 16, 8, keys=4096), {"sinks": torch.zeros(8)}, "sdpa"),
        (shaped(1, 4, 1024, 8), {"dropout_p": 0.1}, "sdpa"),
        (shaped(1, 5, 1024, 8), {"dropout_p": 0.1}, "tiled"),
        (shaped(1, 5, 1024, 8), {"bias": torch.zeros(5, 1, 1024, requires_grad=True)}, "tiled"),
        (shaped(1, 5, 1024, 8), {"bias": torch.zeros(5, 1, 1024)}, "sdpa"),
        (shaped(1, 4, 256, 8), {"map": "sigmoid"}, "reference"),
        (shaped(1, 5, 256, 8), {"map": "sigmoid"}, "tiled"),
        (shaped(1, 4, 1024, 8), {"map": "entmax15"}, "reference"),
        (shaped(1, 5, 1024, 8), {"map": "entmax15"}, "tiled"),
        (shaped(1, 5, 256, 8), {"map": "sinkhorn"}, "reference"),
        (shaped(1, 5, 256, 8), {"softcap": 30.0}, "tiled"),
        (shaped(1, 5, 256, 8), {"softcap": 30.0, "return_weights": True}, "reference"),
        (shaped(1, 5, 256, 8), {"map": mm.create_map("entmax", alpha=torch.nn.Parameter(torch.ones(())))}, "reference"),
    ],
    ids=lambda x: "x".join(map(str, x[0].shape)) if isinstance(x, tuple) else str(x)[:60],
)
@pytest.mark.usefixtures("no_kernels")
def test_the_rules_of_auto_without_native_kernels(inputs, options, want):
    assert choice(*inputs, **options).name == want


@needs_kernels
@pytest.mark.parametrize(
    ("inputs", "options", "want"),
    [
        (shaped(1, 8, 1, 8), {}, "cpu"),
        (shaped(1, 8, 2048, 8, dtype=torch.bfloat16), {"is_causal": True, "dropout_p": 0.1}, "cpu"),
        (shaped(1, 5, 256, 8, dtype=torch.float16), {"map": "sigmoid", "window": 9, "softcap": 30.0}, "cpu"),
        (shaped(1, 8, 64, 8), {"map": "entmax15", "bias": torch.zeros(8, 1, 64, requires_grad=True)}, "cpu"),
        (shaped(1, 8, 64, 8), {"map": mm.create_map("entmax", alpha=2)}, "cpu"),
        (shaped(1, 8, 64, 8), {"map": mm.create_map("entmax", alpha=1.3)}, "reference"),
        (shaped(1, 8, 64, 8), {"map": "sinkhorn"}, "reference"),
        (shaped(1, 8, 64, 8), {"return_weights": True}, "reference"),
        (shaped(1, 8, 64, 8, dtype=torch.float64), {}, "sdpa"),
        (shaped(1, 5, 256, 8, dtype=torch.float64), {"map": "sigmoid"}, "tiled"),
    ],
    ids=lambda x: "x".join(map(str, x[0].shape)) if isinstance(x, tuple) else str(x)[:60],
)
def test_the_rules_of_auto(inputs, options, want):
    assert choice(*inputs, **options).name == want


def test_explain_when_the_backend_asked_for_cannot():
    x = torch.zeros(1, 1, 2, 4)
    text = mm.explain(x, x, x, map="relu", backend="sdpa")
    assert text.startswith("backend 'sdpa' cannot serve this call: torch computes softmax alone")
    assert "tiled could: " in text
    assert choice(x, x, x, map="relu", backend="sdpa").name is None


def test_a_backend_that_is_not_built_says_so():
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="backend 'triton' cannot serve this call: it is not built yet"):
        mm.attention(x, x, x, backend="triton")


def test_an_unknown_backend():
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"backend: expected one of auto, .*got 'tilde'; did you mean 'tiled'\?"):
        mm.attention(x, x, x, backend="tilde")


def test_an_unknown_option():
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(TypeError, match=r"attention has no option 'sofcap'; .*did you mean 'softcap'\?"):
        mm.explain(x, x, x, sofcap=2.0)
    with pytest.raises(TypeError, match="sofcap"):
        mm.attention(x, x, x, sofcap=2.0)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"map": "softmax1", "window": 4},
        {"sinks": torch.tensor([0.5, -0.5]), "is_causal": True, "causal_align": "bottom-right"},
        {"attn_mask": torch.ones(12, 15, dtype=torch.bool).tril(), "map": mm.create_map("softmax", temperature=2.0)},
    ],
    ids=str,
)
def test_compiles_in_one_graph(backend, options):
    query, key, value = (torch.randn(1, 2, n, 4, requires_grad=True) for n in (12, 15, 15))

    def function(query, key, value):
        return mm.attention(query, key, value, backend=backend, **options)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got, want = compiled(query, key, value), function(query, key, value)
    torch.testing.assert_close(got, want)
    for a, b in zip(
        torch.autograd.grad(got.sum(), (query, key, value)),
        torch.autograd.grad(want.sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize("options", [{"causal_align": "bottom-right"}, {"map": "softmax1", "window": 3}], ids=str)
def test_compiles_in_one_graph_for_all_shapes(backend, options):
    def function(query, key):
        return mm.attention(query, key, key, is_causal=True, enable_gqa=True, backend=backend, **options)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="eager")
    for queries, keys in ((5, 9), (12, 7), (6, 6)):
        query, key = torch.randn(2, 4, queries, 8), torch.randn(2, 2, keys, 8)
        torch.testing.assert_close(compiled(query, key), function(query, key))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch._dynamo's own, about autograd.Function
@pytest.mark.parametrize("name", ["softplus", "sigmoid", "sparsemax", "sinkhorn"])
def test_the_reference_compiles_in_one_graph_with_every_kind_of_map(name):
    query, key, value = torch.randn(3, 1, 2, 9, 4).unbind()

    def function(query):
        return mm.attention(query, key, value, is_causal=True, map=name, softcap=2.0, backend="reference")

    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(query), function(query))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch._dynamo looks at it after a break of the graph
def test_tiles_run_between_two_graphs_of_compiled_code():
    query, key, value = (torch.randn(1, 2, 12, 4, requires_grad=True) for _ in range(3))

    def function(query):
        return 2 * mm.attention(query + 1, key, value, map="sigmoid", backend="tiled")

    compiled = torch.compile(function, backend="aot_eager")
    torch.testing.assert_close(compiled(query), function(query))
    torch.testing.assert_close(*(torch.autograd.grad(f(query).sum(), query) for f in (compiled, function)))
    torch._dynamo.reset()  # or it would find the graphs that it has
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(function, fullgraph=True, backend="aot_eager")(query)


@pytest.mark.parametrize("backend", ["reference", "tiled", "sdpa", pytest.param("cpu", marks=needs_kernels)])
def test_autocast_shortens_the_inputs_and_nothing_else(backend):
    given, leaves = arguments(
        Case(causal="top-left", options={"temperature": 1.0}, precision=torch.bfloat16), torch.float32
    )
    half, _ = arguments(Case(causal="top-left", options={"temperature": 1.0}, precision=torch.bfloat16), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = mm.attention(**given | {"value": given["value"].bfloat16()}, backend=backend)
        (d_query,) = torch.autograd.grad(out.float().sum(), leaves["query"])
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, mm.attention(**half, backend=backend))
    assert d_query.dtype == torch.float32
