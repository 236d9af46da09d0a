"""Extreme, missing and undefined scores; strides, empty tensors, dtypes."""

from __future__ import annotations

import math

import pytest
import torch
from entmax import entmax15, sparsemax
from map_cases import CASES, LIMIT, WEIGHTS, named, random_mask, scores
from torch.nn import functional as F

import manymax as mm

every_case = pytest.mark.parametrize("case", named(CASES))
every_dtype = pytest.mark.parametrize("dtype", list(LIMIT), ids=str)
COUPLED = {"sinkhorn"}


@every_dtype
@every_case
def test_extreme_scores_do_not_overflow(case, dtype):
    high = LIMIT[dtype]
    x = torch.tensor([[high, -high, 0.0, 1.0], [-high, -high, -high, 0.0], [high, high, -high, 1.0]], dtype=dtype)
    x.requires_grad_()
    weights = case(x)
    if case.name == "squared_relu" and dtype == torch.float16:
        assert weights[0, 0] == math.inf  # (6e4 / 2)^2 / 4 has no place in float16
        return
    assert torch.isfinite(weights).all()
    (grad,) = torch.autograd.grad(weights.sum(), x)
    assert torch.isfinite(grad).all()
    if case.name != "sinkhorn":  # whose oracle is not made for exp(1e4)
        error = (weights.double() - case.expected(x)).abs().max()
        eps = max(torch.finfo(dtype).eps, 1e-12)  # the oracle's own error at alpha = 1.0001
        assert error <= 2 * eps * weights.double().abs().max().clamp(min=1)
    if case.sums:
        assert ((weights.sum(-1) - 1).abs() <= 4 * torch.finfo(dtype).eps).all()


def test_softplus_of_a_row_of_very_negative_scores_is_zero():
    x = torch.tensor([-104.0, -1e4], requires_grad=True)
    weights = mm.softplus(x)
    assert not weights.any()
    assert not torch.autograd.grad(weights.sum(), x)[0].any()


@every_case
def test_nan_spoils_its_row_and_no_other(case):
    x = scores(3, 5)
    x[1, 2] = math.nan
    weights = case(x)
    if case.module.kind == "pointwise":
        assert torch.isnan(weights).nonzero().tolist() == [[1, 2]]
    else:
        assert torch.isnan(weights[1]).all()
    if case.name not in COUPLED:
        assert torch.equal(weights[[0, 2]], case(x[[0, 2]]))


@every_case
def test_infinite_score(case):
    x = scores(3, 5)
    x[1, 2] = math.inf
    weights = case(x)
    if case.module.kind == "pointwise":
        assert weights[1, 2] == (1 if case.name == "sigmoid" else math.inf)
    else:
        assert torch.isnan(weights[1, 2])
    if case.name not in COUPLED:
        assert torch.equal(weights[[0, 2]], case(x[[0, 2]]))


@every_case
def test_strides(case):
    x, mask = scores(6, 4, 10), random_mask(6, 4, 10, seed=3)
    for change in (lambda t: t.transpose(0, 2), lambda t: t[::2, :, 1::3], lambda t: t[:, :1].expand(6, 5, 10)):
        got = case(change(x), 1, mask=change(mask))
        torch.testing.assert_close(got, case(change(x).contiguous(), 1, mask=change(mask).contiguous()))
        assert got.shape == change(x).shape


@every_case
def test_empty_single_and_no_dims(case):
    for shape in ((0,), (2, 0), (0, 3), (2, 0, 3)):
        for dim in range(len(shape)):
            x = torch.zeros(shape, requires_grad=True)
            assert case(x, dim).shape == shape
            case(x, dim).sum().backward()
    one = torch.tensor(0.7, dtype=torch.float64)
    for dim in (0, -1):
        torch.testing.assert_close(case(one, dim), case.expected(one))
        torch.testing.assert_close(case(one.reshape(1, 1), dim), case.expected(one).reshape(1, 1))
    assert case(one, mask=torch.tensor(False)) == case.hidden
    with pytest.raises(IndexError):
        case(torch.zeros(2, 3), 2)
    with pytest.raises(IndexError):
        case(torch.zeros(0, 3), 2)


# The plain formula in torch, in whatever dtype it is given: what a user would have written without this library.
PEERS = {
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax-temperature=2.0": lambda x: torch.log_softmax(x / 2, -1),
    "softmax1": lambda x: torch.softmax(F.pad(x, (0, 1)), -1)[..., :-1],
    "sigmoid": lambda x: torch.sigmoid(x - math.log(x.shape[-1])),
    "relu": lambda x: torch.relu(x) / x.shape[-1],
    "softplus": lambda x: F.softplus(x) / F.softplus(x).sum(-1, True),
    "stablemax": lambda x: (s := torch.where(x < 0, 1 / (1 - x), x + 1)) / s.sum(-1, True),
    "power_softmax": lambda x: x**4 / (x**4).sum(-1, True),
    "taylor_softmax": lambda x: (s := 1 + x + x * x / 2) / s.sum(-1, True),
    "spherical_softmax-eps=0.0": lambda x: x * x / (x * x).sum(-1, True),
    "sparsemax": lambda x: sparsemax(x, -1),
    "entmax15": lambda x: entmax15(x, -1),
    "topk_softmax-k=3-temperature=0.5": lambda x: torch.softmax(
        (x / 0.5).masked_fill(x < x.topk(3).values[..., -1:], -math.inf), -1
    ),
    "clipped_softmax": lambda x: torch.clip(1.03 * torch.softmax(x, -1) - 0.03, 0, 1),
    "normalized": lambda x: (x - x.mean(-1, True)) / (x.std(-1, correction=0, keepdim=True) + 1e-3),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@every_case
def test_error_in_short_dtypes(case, dtype):
    """Within twice the error of the plain formula in the same dtype; a few units in the last place without one."""
    x = scores(64, 33, seed=5, spread=2.0, dtype=dtype)
    weights, exact = case(x), case.expected(x)
    assert weights.dtype == dtype
    worst = (weights.double() - exact).abs().max()
    last_place = torch.finfo(dtype).eps * exact.abs().max()
    if str(case) in PEERS:
        peer = (PEERS[str(case)](x).double() - exact).abs().max()
        assert worst <= 2 * peer + last_place / 2
    elif str(case) == "entmax-alpha=2.7":
        assert worst <= (1.7 * torch.finfo(torch.float32).eps) ** (1 / 1.7) + last_place
    else:
        assert worst <= 4 * last_place


@every_case
def test_gradient_in_short_dtypes(case):
    x = scores(16, 9, seed=5, spread=2.0, dtype=torch.float16)
    if str(case) == "entmax-alpha=2.7":
        return  # the slope is vertical where a weight starts
    upstream = scores(16, 9, seed=6, dtype=torch.float16)
    (exact,) = torch.autograd.grad(case(y := x.double().requires_grad_()), y, upstream.double())
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.float32, 3e-6)):
        (grad,) = torch.autograd.grad(case(z := x.to(dtype).requires_grad_()), z, upstream.to(dtype))
        assert grad.dtype == dtype
        assert (grad.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp(min=1)


def test_half_is_computed_in_float32():
    x = scores(8, 50, dtype=torch.bfloat16)
    for case in WEIGHTS:
        assert torch.equal(case(x), case(x.float()).bfloat16())


@pytest.mark.parametrize(
    ("name", "options", "low", "high"),
    [
        ("softmax", {}, -1e4 + math.log(3), 1e4 + math.log(3)),
        ("softmax1", {}, 0.0, 1e4 + math.log(3)),
        ("stablemax", {}, math.log(3 / 10001), math.log(3 * 10001)),
        ("power_softmax", {"p": 6, "eps": 0.5}, math.log(3) + 6 * math.log(1e4), math.log(3) + 6 * math.log(1e4)),
        ("taylor_softmax", {"order": 4}, *(math.log(3 * (1e16 / 24 + s * 1e12 / 6)) for s in (-1, 1))),
        ("spherical_softmax", {"eps": 0.0}, math.log(3e8), math.log(3e8)),
    ],
)
def test_logarithm_of_extreme_denominators(name, options, low, high):
    rule = mm.create_map(name, **options).rule()
    x = torch.tensor([[-1e4], [1e4]]).expand(2, 3)
    for visible in (None, torch.ones(2, 3, dtype=torch.bool)):
        got = rule.log_total(x, visible)
        torch.testing.assert_close(got, torch.tensor([[low], [high]]), rtol=2e-7, atol=1e-6)


@pytest.mark.parametrize("name", ["power_softmax", "spherical_softmax"])
def test_eps_of_a_row_of_zeros(name):
    eps, x = torch.tensor(0.5, requires_grad=True), torch.zeros(1, 4)
    total = mm.create_map(name, eps=eps).rule().log_total(x, None)
    torch.testing.assert_close(total.item(), math.log(0.5 if name == "power_softmax" else 2.0))
    weights = getattr(mm, name)(x, eps=eps)
    torch.testing.assert_close(weights, torch.full((1, 4), 0.0 if name == "power_softmax" else 0.25))
    assert torch.autograd.grad(weights.sum(), eps)[0].abs() < 1e-6
