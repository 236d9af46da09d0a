"""Maps served by the row kernels: the same values and derivatives as the plain form, and the plain form elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from map_cases import CASES, random_mask, scores
from torch.autograd import forward_ad

import manymax as mm
from manymax.kernels import rows
from manymax.kernels.native import native, status
from manymax.maps.entmax import AlphaEntmax
from manymax.maps.rule import apply, reference
from manymax.maps.softmax import LogSoftmax, Softmax
from manymax.maps.stablemax import LogStableMax

needs_kernels = pytest.mark.skipif(native() is None, reason=status())
COMPANION_RULES = {"log_softmax": LogSoftmax, "log_stablemax": LogStableMax}
RULES = {str(case): COMPANION_RULES[case.name](**case.options) if case.hidden else case.module.rule() for case in CASES}
each_rule = pytest.mark.parametrize("rule", list(RULES.values()), ids=list(RULES))
N = max(rows.SHORTEST_IN_FLOAT64.values()) + 5


@pytest.fixture
def calls(monkeypatch):
    """List the kernels that ran."""
    ran, weights = [], rows.weights
    monkeypatch.setattr(rows, "weights", lambda name, *a, **k: ran.append(name) or weights(name, *a, **k))
    return ran


def served(rule):
    rule = rule.simplest()
    return rule.row_kernel is not None and not any(isinstance(value, torch.Tensor) for value in rule.options().values())


@needs_kernels
@each_rule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradients_are_those_of_the_plain_form(rule, dtype, calls):
    x, upstream = scores(3, N, 4, dtype=dtype), scores(3, N, 4, seed=1, dtype=dtype)
    x = x + 0.25 * x.sign()  # clear of the corners of relu and power_softmax
    mask = random_mask(3, N, 4)
    mask[1, :, 2] = False
    for given in (None, mask, mask[:, :1]):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        got, expected = apply(rule, ours, 1, given), reference(rule, theirs, 1, given)
        loose = {"rtol": 2e-2, "atol": 2e-3} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(got, expected, **loose)
        keep = torch.where(expected.isfinite(), upstream, 0)
        (grad,) = torch.autograd.grad(got, ours, keep)
        if dtype != torch.bfloat16:  # a rounded score is often exactly at a cut, where there are two derivatives
            torch.testing.assert_close(grad, torch.autograd.grad(expected, theirs, keep)[0])
    assert len(calls) == (3 if served(rule) else 0)


@needs_kernels
@each_rule
def test_second_derivatives_tangents_and_batches_of_gradients(rule):
    x, upstream = scores(N), scores(N, seed=1)

    def twice(function):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad((function(rule, leaf) * upstream).sum(), leaf, create_graph=True)
        return first, torch.autograd.grad(first.square().sum(), leaf)[0]

    torch.testing.assert_close(twice(apply), twice(reference), rtol=1e-6, atol=1e-9)
    leaf = x.clone().requires_grad_()
    y, many = apply(rule, leaf), scores(4, N, seed=2)
    (batch,) = torch.autograd.grad(y, leaf, many, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(
        batch, torch.stack([torch.autograd.grad(y, leaf, v, retain_graph=True)[0] for v in many])
    )


@needs_kernels
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # torch's own, at its first tangent
def test_forward_mode_tangents_travel():
    x, tangent = scores(N), scores(N, seed=1)
    with forward_ad.dual_level():
        got = forward_ad.unpack_dual(mm.softmax(forward_ad.make_dual(x, tangent))).tangent
    torch.testing.assert_close(got, torch.func.jvp(lambda x: torch.softmax(x, -1), (x,), (tangent,))[1])


@needs_kernels
def test_what_the_plain_form_keeps(calls):
    class Doubled(Softmax):
        def weights(self, scores, visible):
            return 2 * super().weights(scores, visible)

    x = scores(2, N)
    assert apply(Doubled(), x).sum().item() == pytest.approx(4)
    mm.sigmoid(x[:, : rows.SHORTEST_IN_FLOAT64["sigmoid"] - 1])
    mm.softmax(x, temperature=torch.tensor(2.0))
    torch.func.vmap(mm.softmax)(x)
    negated = torch.complex(x, x).conj().imag
    torch.testing.assert_close(mm.stablemax(negated), mm.stablemax(-x))
    assert calls == ["stablemax"]  # of -x, which is no view
    with pytest.raises(ValueError, match=r"^mask: expected a shape"):
        mm.stablemax(x, mask=torch.ones(3, 2, N, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^mask: expected dtype torch\.bool"):
        mm.stablemax(x, mask=torch.ones(2, N))


@needs_kernels
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(mm.softmax, torch.softmax), (mm.log_softmax, torch.log_softmax), (mm.logsumexp, torch.logsumexp)],
    ids=["softmax", "log_softmax", "logsumexp"],
)
def test_out_goes_to_the_kernel_where_it_fits(ours, theirs, monkeypatch):
    given, weights = [], rows.weights
    monkeypatch.setattr(rows, "weights", lambda *a, **k: given.append(k.get("out") is not None) or weights(*a, **k))
    x = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(0))
    expected = theirs(x, 1)
    memory = torch.full((3, *expected.shape[1:], 2), torch.nan)
    transposed = torch.full(expected.shape[::-1], torch.nan).permute(*reversed(range(expected.dim())))
    cases = [
        (x, torch.full_like(expected, torch.nan), True),
        (x, memory[..., 1], True),
        (x, transposed, True),
        (x, torch.empty(0), False),
    ]
    if ours is not mm.logsumexp:
        again, shifted = x.clone(), torch.randn(3, 41, 4, generator=torch.Generator().manual_seed(1))
        cases += [(again, again, True), (shifted[:, :-1], shifted[:, 1:], False)]
    for scores_, out, direct in cases:
        exact = theirs(scores_.clone(), 1)
        given.clear()
        assert ours(scores_, 1, out=out) is out
        torch.testing.assert_close(out, exact)
        assert given == [direct]
    with pytest.raises(RuntimeError, match="single memory location"):
        ours(x, 1, out=torch.zeros(1).expand(expected.shape))


@needs_kernels
def test_logsumexp_runs_the_kernel(calls):
    x, upstream = scores(3, 40, 4).requires_grad_(), scores(3, 1, 4, seed=1)
    mask = random_mask(3, 40, 4)
    mask[1, :, 2] = False
    for given in (None, mask, mask[:, :1]):
        got = mm.logsumexp(x, 1, keepdim=True, mask=given, temperature=1.5)
        expected = mm.logsumexp(x, (1,), keepdim=True, mask=given, temperature=torch.tensor(1.5))
        torch.testing.assert_close(got, expected)
        keep = torch.where(expected.isfinite(), upstream, 0)
        grads = [torch.autograd.grad(y, x, keep, retain_graph=True)[0] for y in (got, expected)]
        torch.testing.assert_close(*grads)
    assert calls == ["logsumexp"] * 3
    assert torch.autograd.gradgradcheck(lambda x: mm.logsumexp(x, 0), scores(5, 2).requires_grad_())


@needs_kernels
@pytest.mark.parametrize("dims", [(1, 2), (0, 2), (-1, 0, 1), ()], ids=str)
def test_logsumexp_over_several_dims_runs_the_kernel(dims, calls):
    x, mask = scores(3, 40, 4).requires_grad_(), random_mask(3, 40, 1)
    for keepdim in (False, True):
        got = mm.logsumexp(x, dims, keepdim, mask=mask)
        expected = mm.logsumexp(x, dims, keepdim, mask=mask, temperature=torch.tensor(1.0))
        exact = torch.logsumexp(x.masked_fill(~mask, -torch.inf), dims or (0, 1, 2), keepdim)
        torch.testing.assert_close(got, exact)
        upstream = torch.where(got.isfinite(), scores(*got.shape, 1, seed=1)[..., 0], 0)
        grads = [torch.autograd.grad(y, x, upstream)[0] for y in (got, expected)]
        torch.testing.assert_close(*grads)
    out = torch.full_like(expected.squeeze(), torch.nan).detach()
    with torch.no_grad():
        assert mm.logsumexp(x.detach(), dims, mask=mask, out=out) is out
    torch.testing.assert_close(out, expected.squeeze())
    assert calls == ["logsumexp"] * 3
    assert torch.autograd.gradgradcheck(lambda x: mm.logsumexp(x, dims[:2]), scores(5, 2, 2).requires_grad_())


@needs_kernels
def test_scores_may_be_overwritten_after_softmax_as_in_torch(calls):
    leaf = scores(2, N).requires_grad_()
    upstream, x = scores(2, N, seed=1), leaf * 1
    y = mm.softmax(x)
    x.zero_()
    (got,) = torch.autograd.grad(y, leaf, upstream)
    torch.testing.assert_close(got, torch.autograd.grad(torch.softmax(leaf, -1), leaf, upstream)[0])
    assert calls == ["softmax"]


@needs_kernels
def test_special_alphas_take_the_kernels_of_their_maps(calls):
    for alpha in (1, 1.5, 2.0, 1.7):
        apply(AlphaEntmax(1.0, alpha), scores(2, N))
    assert calls == ["softmax", "entmax15", "sparsemax", "entmax"]


def test_switched_off_by_the_environment():
    code = "from manymax import kernels, stablemax; import torch; stablemax(torch.ones(3)); print(kernels.status())"
    environment = os.environ | {"MANYMAX_ISA": "none"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "native CPU kernels are switched off by MANYMAX_ISA=none"
