"""Dropout in the native kernels: reproducible, fair, independent, and the same backwards as forwards."""

from dataclasses import replace

import pytest
import torch
from dense_cases import Case, arguments
from native_cases import HAVE, case_of, needs_kernels
from torch.utils.checkpoint import checkpoint

import manymax as mm

pytestmark = needs_kernels
SOME = [name for name in ("softmax", "sigmoid", "softplus", "sparsemax") if name in HAVE]


def dropped(p, seed, **changes):
    torch.manual_seed(seed)
    given, leaves = arguments(replace(Case(queries=50, keys=40), **changes), torch.float32)
    return mm.attention(**given, dropout_p=p, backend="cpu"), leaves


def test_it_is_reproducible_and_moves_the_generator_by_one_draw():
    first, _ = dropped(0.4, 7)
    after = torch.rand(3)
    again, _ = dropped(0.4, 7)
    assert torch.equal(first, again)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(7)
    torch.randint(2**62, ())
    assert torch.equal(after, torch.rand(3))
    assert not torch.equal(first, dropped(0.4, 8)[0])


@pytest.mark.parametrize("name", SOME)
def test_it_keeps_the_mean_and_the_probability(name):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 4, 64, 8, generator=generator)
    value = torch.eye(64).expand(1, 4, 64, 64)  # the output is the weights
    whole = mm.attention(query, key, value, map=name)
    parts = torch.stack([mm.attention(query, key, value, dropout_p=0.3, map=name, backend="cpu") for _ in range(150)])
    shown = whole > 1e-3
    assert abs((parts[:, shown] == 0).float().mean() - 0.3) < 0.007
    kept = parts[parts > 0] / whole.expand_as(parts)[parts > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7), rtol=1e-3, atol=0)
    assert ((parts[:, shown] == 0).float().mean(0) - 0.3).abs().max() < 6 * (0.21 / 150) ** 0.5


def test_it_is_independent_between_rows_heads_and_entries():
    query = key = torch.zeros(2, 3, 64, 4)
    value = torch.eye(64).expand(2, 3, 64, 64)
    gone = mm.attention(query, key, value, dropout_p=0.5, backend="cpu") == 0
    for view in (gone, gone.mT):
        lines = view.reshape(-1, 64).float()
        alike = torch.cdist(lines, lines, p=0).fill_diagonal_(32)  # in how many places two lines differ: 32 +- 4
        assert (alike - 32).abs().max() < 6 * 4
        later = (lines[:, 1:] == lines[:, :-1]).float().mean(0)  # neighbours within a line
        assert (later - 0.5).abs().max() < 5 * 0.5 / len(lines) ** 0.5


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("options", [{}, {"is_causal": True, "softcap": 2.0}])
def test_it_goes_back_through_the_same_weights(name, options):
    """The kept pairs, read from the output for values of 1, give the reference's gradients as a product."""
    case = case_of(name, batch=1, heads=2, key_heads=1, queries=40, keys=70, bias="h", sinks=True, lse=False)
    given, leaves = arguments(case, torch.float32)
    given |= options
    p, eye = 0.4, torch.eye(70).expand(1, 1, 70, 70)

    torch.manual_seed(3)
    factors = mm.attention(**given | {"value": eye}, dropout_p=p, backend="cpu").detach()
    torch.manual_seed(3)
    out = mm.attention(**given, dropout_p=p, backend="cpu")
    got = torch.autograd.grad(out.square().sum(), list(leaves.values()))

    _, weights = mm.attention(**given, return_weights=True, backend="reference")
    kept = torch.where(factors == 0, 0.0, 1 / (1 - p))
    want_out = (weights * kept) @ given["value"].repeat_interleave(2, 1)
    torch.testing.assert_close(out, want_out, rtol=1e-4, atol=1e-5)
    want = torch.autograd.grad(want_out.square().sum(), list(leaves.values()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_dropping_all_gives_zeros():
    out, leaves = dropped(1.0, 0)
    assert (out == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), list(leaves.values())))


def test_lse_and_few_queries_know_of_no_dropout():
    given, _ = arguments(Case(lse=True, queries=1), torch.float32)
    whole, dropped = (mm.attention(**given, dropout_p=p, backend="cpu") for p in (0.0, 0.5))
    assert torch.equal(whole[1], dropped[1])
    torch.manual_seed(1)
    want = mm.attention(**given, dropout_p=0.5, backend="cpu")[0].detach()
    torch.manual_seed(1)
    with torch.no_grad():  # another kernel may serve
        torch.testing.assert_close(mm.attention(**given, dropout_p=0.5, backend="cpu")[0], want)


def test_checkpoint_repeats_it():
    given, leaves = arguments(Case(), torch.float32)

    def function(query):
        return mm.attention(**{**given, "query": query}, dropout_p=0.5, backend="cpu")

    torch.manual_seed(1)
    (want,) = torch.autograd.grad(function(leaves["query"]).square().sum(), leaves["query"])
    torch.manual_seed(1)
    out = checkpoint(function, leaves["query"], use_reentrant=False)
    (got,) = torch.autograd.grad(out.square().sum(), leaves["query"])
    assert torch.equal(got, want)
