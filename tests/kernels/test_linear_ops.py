"""The native linear recurrence as custom ops: what compilers, modes and transforms see, and what it refuses."""

import pytest
import torch
from linear_cases import Case, inputs, needs_kernels
from torch.library import opcheck

from manymax.kernels import columns, linear
from manymax.kernels.linear_call import Tensors
from manymax.kernels.native import native

pytestmark = needs_kernels
CASES = [
    Case("token", delta=True, state=True, key_heads=1, tokens=20, dim=6),
    Case("channel", tokens=17),
    Case("head", state=True, tokens=5, heads=4),
    Case(tokens=20),
]


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests():
    torch._dynamo.reset()


def leaves(case):
    return {name: x if x is None else x.requires_grad_() for name, x in inputs(case).items()}


def gradients(results, given):
    present = [x for x in given.values() if x is not None and x.requires_grad]
    return torch.autograd.grad(sum(x.square().sum() for x in results), present)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own, at inputs that are no leaves
@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck(case):
    given = leaves(case)
    opcheck(torch.ops.manymax.recurrence, (*given.values(), 0))
    folded = {name: given[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("query", "key", "value")}
    opcheck(torch.ops.manymax.recurrence, (*(given | folded).values(), 48))


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_opcheck_of_columns(monkeypatch):
    monkeypatch.setattr(columns, "FEWEST", 20)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    given = leaves(Case("head", True, True, 1, 2, 1, 20, 6, 32))
    folded = {name: given[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("query", "key", "value")}
    for each in (given, given | folded):
        assert columns.parts(Tensors(*each.values())) == 2
        opcheck(torch.ops.manymax.recurrence, (*each.values(), 0))


@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (False, False, False)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck_backwards(case, needs):
    given = inputs(case)
    out, state = torch.ops.manymax.recurrence(*given.values(), 0)
    for ahead in ((torch.randn_like(out), torch.randn_like(state)), (torch.randn_like(out), None), (None, state)):
        opcheck(torch.ops.manymax.recurrence_backward, (*ahead, *given.values(), list(needs), 0))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiles_in_one_graph(case):
    given = leaves(case)
    compiled = torch.compile(linear.attend, fullgraph=True, backend="aot_eager")
    got, want = compiled(**given), linear.attend(**given)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, given), gradients(want, given))


def test_compiles_once_for_all_lengths():
    compiled = torch.compile(linear.attend, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (20, 33, 4):
        given = leaves(Case("token", delta=True, tokens=tokens, key_heads=1))
        got, want = compiled(**given), linear.attend(**given)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(gradients(got, given), gradients(want, given))


def test_second_derivatives_are_refused():
    given = leaves(CASES[0])
    (first, *_) = torch.autograd.grad(linear.attend(**given)[0].square().sum(), given["key"], create_graph=True)
    with pytest.raises(RuntimeError, match="the native recurrence gives no second derivatives; the plain PyTorch form"):
        (first.sum() + given["query"].sum()).backward()


def test_a_batch_of_gradients():
    given = leaves(CASES[0])
    out, _ = linear.attend(**given)
    directions = torch.randn(3, *out.shape)
    for name in ("query", "beta"):
        (got,) = torch.autograd.grad(out, given[name], directions, is_grads_batched=True, retain_graph=True)
        want = [torch.autograd.grad(out, given[name], d, retain_graph=True)[0] for d in directions]
        torch.testing.assert_close(got, torch.stack(want))


def test_negated_views_are_read_as_what_they_show():
    query = torch.randn(1, 2, 20, 16, dtype=torch.complex64).conj().imag
    assert query.is_neg()
    given = inputs(Case(tokens=20))
    want = linear.attend(**given | {"query": query.resolve_neg()})
    torch.testing.assert_close(linear.attend(**given | {"query": query}), want)


class Subclass(torch.Tensor):
    """A tensor with behaviour of its own."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda x: x | {"query": x["query"].double()},
            "query, key and value in one dtype, float32, bfloat16 or float16",
        ),
        (lambda x: x | {"value": x["value"].half()}, "query, key and value in one dtype"),
        (lambda x: x | {"beta": x["beta"].bfloat16()}, "log_decay, beta and initial_state in float32"),
        (lambda x: x | {"key": x["key"].as_subclass(Subclass)}, "a subclass of torch.Tensor leaves no memory to read"),
        (lambda x: x | {"value": x["value"].to("meta")}, "it takes tensors on the CPU"),
        (lambda x: x | {"log_decay": torch.zeros(1, 2, 20, 6)}, "one decay a token, not one for each channel"),
    ],
)
def test_what_it_cannot_serve(change, reason):
    given = inputs(CASES[0])
    assert linear.refusal(**given) is None
    assert reason in linear.refusal(**change(given))


def test_transforms_have_no_memory_to_read():
    given = inputs(Case(tokens=9))
    found = []

    def note(query):
        found.append(linear.refusal(**given | {"query": query}))
        return query

    torch.vmap(note)(given["query"])
    assert "a transform" in found[0]


def test_without_kernels_it_says_so(monkeypatch):
    monkeypatch.setattr(linear, "available", lambda: False)
    monkeypatch.setattr(linear, "status", lambda: "no compiler was found")
    assert native() is not None
    assert linear.refusal(**inputs(CASES[0])) == "no compiler was found"
