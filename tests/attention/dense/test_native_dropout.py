"""Dropout in the native kernels: independent, and the same backwards as forwards; test_dropout.py has the rest."""

import pytest
import torch
from dense_cases import Case, arguments
from native_cases import HAVE, case_of, needs_kernels

import manymax as mm

pytestmark = needs_kernels
SOME = [name for name in ("softmax", "sigmoid", "softplus", "sparsemax") if name in HAVE]


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


def test_lse_and_few_queries_know_of_no_dropout():
    given, _ = arguments(Case(lse=True, queries=1), torch.float32)
    whole, dropped = (mm.attention(**given, dropout_p=p, backend="cpu") for p in (0.0, 0.5))
    assert torch.equal(whole[1], dropped[1])
    torch.manual_seed(1)
    want = mm.attention(**given, dropout_p=0.5, backend="cpu")[0].detach()
    torch.manual_seed(1)
    with torch.no_grad():  # another kernel may serve
        torch.testing.assert_close(mm.attention(**given, dropout_p=0.5, backend="cpu")[0], want)
