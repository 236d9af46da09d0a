"""The native kernels as custom ops: what compilers, modes and transforms see, and that it is what eager calls give."""

import pytest
import torch
from dense_cases import Case, arguments
from native_cases import needs_kernels
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

import manymax as mm
from manymax.attention.dense.api import choice

pytestmark = needs_kernels
CASES = [
    Case(lse=True, causal="top-left", sinks=True, softcap=2.0, bias="hk"),
    Case(mask="bool", window=5),
    Case(mask="float", bias="bq", lse=True, scale=-0.3, strided=True),
]


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests():
    torch._dynamo.reset()


def work(dropout=0.0, *, lse=True, few=False):
    return "softmax", [], 1.5, 0.3, 2.0, dropout, -30, 2, lse, few


def tensors(*, grad=True):
    _, leaves = arguments(Case(sinks=True, bias="hk", mask="float"), torch.float32)
    mask = torch.rand(2, 1, 33, 29) > 0.3
    query, key, value, sinks, bias, added = (
        leaves[name].detach().requires_grad_(grad) for name in ("query", "key", "value", "sinks", "bias", "attn_mask")
    )
    return query, key, value, mask, sinks, bias, added


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own, at inputs that are no leaves
@pytest.mark.parametrize("seed", [None, torch.tensor(5)])
@pytest.mark.parametrize("lse", [False, True])
def test_opcheck(seed, lse):
    opcheck(torch.ops.manymax.attention, (*tensors(), seed, *work(0.3 if seed is not None else 0.0, lse=lse)))
    query, key, value, *_ = tensors()
    transposed = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value))
    opcheck(torch.ops.manymax.attention, (*transposed, None, None, None, None, seed, *work(lse=lse)))


@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (False, False, False)])
def test_opcheck_backwards(needs):
    given = tensors(grad=False)
    out, lse, stats = torch.ops.manymax.attention(*given, None, *work())
    grads = (torch.randn_like(out), torch.randn_like(lse))
    opcheck(torch.ops.manymax.attention_backward, (*grads, *given, out, stats, list(needs), None, *work()))
    opcheck(torch.ops.manymax.attention_backward, (grads[0], None, *given, out, stats, list(needs), None, *work()))


def gradients(results, leaves):
    results = results if isinstance(results, tuple) else (results,)
    loss = sum(torch.where(x == -torch.inf, 0, x).square().sum() for x in results)
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_compiles_in_one_graph(case, backend):
    given, leaves = arguments(case, torch.float32)
    given["map"] = "softmax"
    names, values = list(leaves), list(leaves.values())

    def function(*values):
        return mm.attention(**{**given, **dict(zip(names, values, strict=True))}, backend=backend)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got, want = compiled(*values), function(*values)
    torch.testing.assert_close(got, want)
    for a, b in zip(gradients(got, values), gradients(want, values), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*values), want)


def test_compiles_once_for_all_shapes():
    def function(query, key):
        return mm.attention(
            query, key, key, is_causal=True, enable_gqa=True, causal_align="bottom-right", backend="cpu"
        )

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for queries, keys in ((5, 9), (12, 7), (6, 6)):
        query, key = torch.randn(2, 4, queries, 8, requires_grad=True), torch.randn(2, 2, keys, 8)
        got, want = compiled(query, key), function(query, key)
        torch.testing.assert_close(got, want)
        for a, b in zip(gradients(got, [query]), gradients(want, [query]), strict=True):
            torch.testing.assert_close(a, b)


def test_compiled_dropout_is_drawn_anew_and_goes_back_through_the_same_weights():
    query, key = torch.zeros(2, 1, 2, 40, 8).unbind()
    value = torch.eye(40).expand(1, 2, 40, 40).contiguous().requires_grad_()

    def function(value):
        return mm.attention(query, key, value, dropout_p=0.5, backend="cpu")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    one, two = compiled(value), compiled(value)
    assert not torch.equal(one, two)
    assert abs((one == 0).float().mean() - 0.5) < 0.05
    (got,) = torch.autograd.grad(one.sum(), value)
    torch.testing.assert_close(got, one.detach().sum(2)[..., None].expand_as(got))


def test_a_traced_graph_holds_the_op():
    inputs = torch.randn(3, 1, 2, 9, 4).unbind()
    graph = make_fx(lambda *inputs: mm.attention(*inputs, backend="cpu"), tracing_mode="fake")(*inputs)
    assert torch.ops.manymax.attention.default in [node.target for node in graph.graph.nodes]
    torch.testing.assert_close(graph(*inputs), mm.attention(*inputs))


class Calls(TorchDispatchMode):
    """Note every operation."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.append(func)
        return func(*args, **(kwargs or {}))


def test_a_mode_sees_the_op_and_gets_the_same_numbers():
    given, leaves = arguments(CASES[0], torch.float32)
    want = mm.attention(**given, backend="cpu")
    want_gradients = gradients(want, list(leaves.values()))
    with Calls() as calls:
        got = mm.attention(**given, backend="cpu")
        got_gradients = gradients(got, list(leaves.values()))
    assert torch.ops.manymax.attention.default in calls.found
    assert torch.ops.manymax.attention_backward.default in calls.found
    torch.testing.assert_close((got, got_gradients), (want, want_gradients), rtol=0, atol=0)


def test_second_derivatives_are_refused():
    given, leaves = arguments(Case(bias="h"), torch.float32)
    out = mm.attention(**given, backend="cpu").square().sum()
    (d_key,) = torch.autograd.grad(out, leaves["key"], create_graph=True)
    with pytest.raises(RuntimeError, match="backend 'cpu' gives no second derivatives; ask attention for backend='ref"):
        (d_key.sum() + leaves["query"].sum()).backward()


def test_a_batch_of_gradients():
    given, leaves = arguments(Case(queries=3, keys=5, bias="h"), torch.float32)
    out = mm.attention(**given, backend="cpu")
    directions = torch.randn(4, *out.shape)
    for name in ("query", "bias"):
        (got,) = torch.autograd.grad(out, leaves[name], directions, is_grads_batched=True, retain_graph=True)
        want = [torch.autograd.grad(out, leaves[name], d, retain_graph=True)[0] for d in directions]
        torch.testing.assert_close(got, torch.stack(want))


def test_transforms_and_tangents_take_another_backend():
    query, key = torch.randn(2, 3, 1, 2, 9, 4).unbind()
    want = torch.stack([mm.attention(q, k, k, map="softplus") for q, k in zip(query, key, strict=True)])
    got = torch.vmap(lambda q, k: mm.attention(q, k, k, map="softplus"))(query, key)
    torch.testing.assert_close(got, want)
    with torch.autograd.forward_ad.dual_level():
        assert choice(query[0], key[0], key[0]).name != "cpu"


def test_negated_views_are_read_as_what_they_show():
    complex_numbers = torch.randn(1, 2, 9, 4, dtype=torch.complex64)
    query = complex_numbers.conj().imag
    assert query.is_neg()
    key = torch.randn(1, 2, 9, 4)
    got = mm.attention(query, key, key, backend="cpu")
    torch.testing.assert_close(got, mm.attention(query.resolve_neg(), key, key, backend="cpu"))


@pytest.mark.parametrize("asked", ["query", "value", "bias", "sinks"])
def test_one_gradient_alone(asked):
    given, leaves = arguments(Case(bias="h", sinks=True), torch.float32)
    given = {name: x.detach() if name in leaves and name != asked else x for name, x in given.items()}
    (got,) = torch.autograd.grad(mm.attention(**given, backend="cpu").sum(), given[asked])
    (want,) = torch.autograd.grad(mm.attention(**given, backend="reference").sum(), given[asked])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
