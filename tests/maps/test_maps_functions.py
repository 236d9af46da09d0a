"""logsumexp; out= on the three functions that torch has it on; options out of range; tensor options that broadcast."""

from __future__ import annotations

import math

import pytest
import torch
from map_cases import random_mask, scores

import manymax as mm

TORCH = [(mm.softmax, torch.softmax), (mm.log_softmax, torch.log_softmax), (mm.logsumexp, torch.logsumexp)]
with_out = pytest.mark.parametrize(("ours", "theirs"), TORCH, ids=["softmax", "log_softmax", "logsumexp"])


@with_out
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_equals_torch(ours, theirs, dtype):
    x = scores(3, 4, 5, dtype=dtype)
    x[0, 1, 2] = -math.inf
    for dim in (-1, 0, 1):
        torch.testing.assert_close(ours(x, dim), theirs(x.float(), dim).to(dtype))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, -1, (0,), (0, 2), (2, 0), (-1, -2), (0, 1, 2), ()], ids=str)
def test_logsumexp_over_several_dims(dim, keepdim):
    x, mask = scores(3, 4, 5), random_mask(4, 1, seed=1)
    got = [mm.logsumexp(x, dim, keepdim), mm.logsumexp(x, dim, keepdim, mask=mask)]
    dim = (0, 1, 2) if dim == () else dim  # torch 2.13 means the same by (), and fails on it with keepdim=False
    torch.testing.assert_close(got[0], torch.logsumexp(x, dim, keepdim))
    masked = torch.where(mask, x, -math.inf)
    torch.testing.assert_close(got[1], torch.logsumexp(masked, dim, keepdim))
    warm = mm.logsumexp(x, dim, keepdim, temperature=torch.tensor([[0.5], [1.0], [2.0], [3.0]]).double())
    torch.testing.assert_close(warm, torch.logsumexp(x / torch.tensor([[0.5], [1], [2], [3]]), dim, keepdim))


def test_logsumexp_of_nothing():
    x = scores(2, 3).requires_grad_()
    total = mm.logsumexp(x, mask=torch.tensor([[True], [False]]))
    assert total[1] == -math.inf
    (grad,) = torch.autograd.grad(total.sum(), x)
    assert not grad[1].any()
    torch.testing.assert_close(grad[0], torch.softmax(x[0], -1))
    assert mm.logsumexp(torch.full((3,), -math.inf)) == -math.inf
    assert mm.logsumexp(torch.zeros(2, 0)).tolist() == [-math.inf] * 2
    assert mm.logsumexp(torch.zeros(0, 2), 1).shape == (0,)
    assert mm.logsumexp(torch.tensor(3.0), 0, keepdim=True) == 3
    assert mm.logsumexp(torch.tensor(3.0), ()) == 3


def test_logsumexp_of_undefined_and_large():
    assert mm.logsumexp(torch.tensor([math.inf, 0.0])) == math.inf
    assert math.isnan(mm.logsumexp(torch.tensor([math.nan, 0.0])))
    assert mm.logsumexp(torch.tensor([6e4, 6e4], dtype=torch.float16)) == 6e4
    torch.testing.assert_close(mm.logsumexp(torch.tensor([1e4, 1e4])), torch.tensor(1e4 + math.log(2)))
    for dim in ((0, 0), (0, -2)):
        with pytest.raises(RuntimeError, match="dim"):
            mm.logsumexp(torch.zeros(2, 3), dim)
    with pytest.raises(IndexError):
        mm.logsumexp(torch.zeros(2, 3), 2)


@with_out
def test_logarithms_have_derivatives(ours, theirs):
    del theirs
    x = scores(3, 4, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(ours, x)
    assert torch.autograd.gradgradcheck(ours, x)


@with_out
def test_out_is_written(ours, theirs):
    x = scores(3, 4)
    expected = theirs(x, 1)
    for out in (torch.full_like(expected, math.nan), torch.empty(0, dtype=x.dtype)):
        assert ours(x, 1, out=out) is out
        torch.testing.assert_close(out, expected)
    whole = torch.zeros(expected.numel() * 2, dtype=x.dtype)
    strided = whole[::2].view(expected.shape)
    ours(x, 1, out=strided)
    torch.testing.assert_close(strided, expected)
    assert not whole[1::2].any()
    if expected.shape == x.shape:
        torch.testing.assert_close(ours(x, 1, out=x), expected)  # in place
        torch.testing.assert_close(x, expected)


@with_out
def test_out_is_resized_with_torchs_warning(ours, theirs):
    x, out = scores(3, 4), torch.empty(2, dtype=torch.float64)
    with pytest.warns(UserWarning, match="resized"):
        ours(x, 1, out=out)
    torch.testing.assert_close(out, theirs(x, 1))


@with_out
def test_out_refuses_other_dtypes_and_gradients(ours, theirs):
    del theirs
    x = scores(3, 4)
    out = ours(x, 1)
    for dtype in (torch.float32, torch.int64):
        with pytest.raises(RuntimeError, match=r"out: expected a torch\.float64 tensor on cpu"):
            ours(x, 1, out=out.to(dtype))
    with pytest.raises(RuntimeError, match="on meta"):
        ours(x, 1, out=out.to("meta"))
    for given, target in ((x.clone().requires_grad_(), out), (x, out.clone().requires_grad_())):
        with pytest.raises(RuntimeError, match=r"^out: functions with out= do not support automatic"):
            ours(given, 1, out=target)
        with torch.no_grad():
            torch.testing.assert_close(ours(given, 1, out=target), ours(x, 1))


BAD = [
    ("softmax", {"temperature": 0.0}),
    ("softmax", {"temperature": -1.0}),
    ("softmax", {"temperature": math.nan}),
    ("softmax", {"temperature": "hot"}),
    ("softmax", {"temperature": torch.tensor([1.0, 0.0])}),
    ("log_softmax", {"temperature": 0.0}),
    ("logsumexp", {"temperature": 0.0}),
    ("log_stablemax", {"temperature": -2}),
    ("power_softmax", {"p": 3}),
    ("power_softmax", {"p": 0}),
    ("power_softmax", {"p": 2.0}),
    ("power_softmax", {"eps": -1e-3}),
    ("taylor_softmax", {"order": 3}),
    ("taylor_softmax", {"order": 0}),
    ("spherical_softmax", {"eps": -1.0}),
    ("entmax", {"alpha": 0.99}),
    ("entmax", {"alpha": math.nan}),
    ("entmax", {"alpha": math.inf}),
    ("entmax", {"alpha": torch.tensor(0.5)}),
    ("topk_softmax", {"k": 0}),
    ("topk_softmax", {"k": 2.5}),
    ("clipped_softmax", {"zeta": 0.9}),
    ("clipped_softmax", {"gamma": 0.1}),
    ("sinkhorn", {"iterations": 2}),
    ("sinkhorn", {"iterations": -1}),
    ("sinkhorn", {"eps": 0.0}),
    ("sinkhorn", {"tolerance": -1e-9}),
    ("normalized", {"eps": 0.0}),
]


@pytest.mark.parametrize(("name", "options"), BAD, ids=str)
def test_options_out_of_range(name, options):
    (option,) = options
    with pytest.raises(ValueError, match=f"^{option}: expected .*, got "):
        getattr(mm, name)(torch.zeros(3), **options)
    with pytest.raises(ValueError, match=f"^{option}: expected .*, got "):
        mm.create_map(name, **options)


@pytest.mark.parametrize("name", [*mm.list_maps(), "log_softmax", "logsumexp", "log_stablemax"])
def test_wrong_arguments(name):
    function = getattr(mm, name)
    for x in (torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.complex64)):
        with pytest.raises(ValueError, match=r"^x: expected a floating-point tensor, got torch"):
            function(x)
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"^mask: expected dtype torch\.bool"):
        function(x, mask=torch.ones(2, 3))
    for shape in ((2, 2), (3, 1), (1, 2, 3)):
        expected = r"^mask: expected a shape that broadcasts to \(2, 3\), got "
        with pytest.raises(ValueError, match=expected):
            function(x, mask=torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^temperature: expected a shape that broadcasts to \(2, 3\), got \(4,\)"):
        function(x, temperature=torch.ones(4))
    with pytest.raises(TypeError, match="sharpness"):
        function(x, sharpness=2.0)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("softmax", "temperature", 0.5),
        ("sigmoid", "bias", -1.0),
        ("power_softmax", "eps", 0.3),
        ("spherical_softmax", "eps", 0.3),
        ("entmax", "alpha", 1.4),
        ("clipped_softmax", "gamma", -0.1),
        ("clipped_softmax", "zeta", 1.3),
        ("normalized", "gain", 2.0),
    ],
)
def test_tensor_options_broadcast_to_x(name, option, value, dim):
    x, function = scores(3, 4, 5), getattr(mm, name)
    sizes = [3, 4, 5]
    sizes[dim] = 1
    values = value * (1 + 0.1 * torch.rand(sizes, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    got = function(x, dim=dim, **{option: values})
    rows = zip(x.movedim(dim, -1).reshape(-1, x.shape[dim]), values.flatten(), strict=True)
    expected = torch.stack([function(row, **{option: float(v)}) for row, v in rows])
    torch.testing.assert_close(got.movedim(dim, -1).reshape(expected.shape), expected)


def test_one_alpha_for_each_row():
    with pytest.raises(ValueError, match=r"^alpha: expected size 1 in dim"):
        mm.entmax(torch.zeros(2, 3), torch.full((2, 3), 1.5))
    with pytest.raises(ValueError, match=r"^alpha: expected size 1 in dim"):
        mm.entmax(torch.zeros(2, 3), torch.full((2, 1), 1.5), 0)
