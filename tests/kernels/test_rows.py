"""Row kernels against the formulas in float64, on one instruction set; test_isas.py repeats this file on the others."""

from __future__ import annotations

import threading

import oracle
import pytest
import torch
from torch import Tensor

from manymax.kernels import ops, rows
from manymax.kernels.native import native, status

pytestmark = pytest.mark.skipif(native() is None, reason=status())
NAMES = sorted(rows.OPTIONS)
OTHER_OPTIONS = {
    "clipped_softmax": {"zeta": 1.25, "gamma": -0.002},
    "entmax": {"alpha": 2.6},
    "sigmoid": {"bias": -1.25},
    "power_softmax": {"p": 6, "eps": 0.75, "length_agnostic": True},
    "spherical_softmax": {"eps": 0.0},
    "taylor_softmax": {"order": 4},
    "topk_softmax": {"k": 300},
}
# Relative to the largest value: sums and quotients in float32 stay below 2e-6; half an ulp of bfloat16 is 2e-3.
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-14, torch.bfloat16: 5e-3, torch.float16: 7e-4}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fill outputs with NaN before the kernel runs, so that an entry it does not write shows."""
    empty_like, new_empty = torch.empty_like, Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda x, **k: empty_like(x, **k).fill_(float("nan")))
    monkeypatch.setattr(Tensor, "new_empty", lambda x, *a, **k: new_empty(x, *a, **k).fill_(float("nan")))


def scores(*shape: int, dtype=torch.float32, seed: int = 0) -> Tensor:
    # Powers have slopes of p / x: away from 0 their conditioning is that of the other maps.
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    return (x + 0.5 * x.sign()).to(dtype)


def close(got: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    got, expected = got.detach().double(), expected.detach()
    infinite = expected == -torch.inf
    assert torch.equal(got == -torch.inf, infinite)
    got, expected = got.masked_fill(infinite, 0), expected.masked_fill(infinite, 0)
    size = max(float(expected.abs().max()), 0.05) if expected.numel() else 1.0
    torch.testing.assert_close(got / size, expected / size, rtol=0, atol=TOLERANCE[dtype] * scale, equal_nan=True)


def check(name: str, x: Tensor, dim: int = -1, mask: Tensor | None = None, **options) -> None:
    """Compare weights and gradient with the oracle's."""
    assert rows.supports(name, options, x, dim, mask) is None
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    got = rows.weights(name, options, ours, dim, mask)
    expected = oracle.weights(name, theirs, dim, mask, **options)
    assert got.dtype == x.dtype
    close(got, expected, x.dtype)
    gradient = scores(*got.shape, dtype=x.dtype, seed=1)
    finite = expected.isfinite()
    if name == "sparsemax":
        # A score exactly at the cut, frequent in bfloat16, has a derivative on either side: both are right.
        tied = (got > 0) != (expected > 1e-9)
        assert got[tied].abs().max() < 1e-6 if tied.any() else True
        if tied.any():
            return
    (got_grad,) = torch.autograd.grad(got, ours, gradient)
    (expected_grad,) = torch.autograd.grad(expected[finite], theirs, gradient.double()[finite])
    close(got_grad, expected_grad, x.dtype, scale=8)


def vector() -> int:
    return 16 if "512" in status() else 8 if "avx2" in status() else 4


@pytest.mark.parametrize("name", NAMES)
def test_every_length_up_to_two_vectors_at_every_misalignment(name):
    for n in range(1, 2 * vector() + 2):
        memory = scores(3 * n + vector(), seed=n)
        start = n % vector()
        check(name, memory[start : start + 3 * n].view(3, n))


@pytest.mark.parametrize("dtype", list(ops.DTYPES), ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes_in_and_out_of_the_buffers(name, dtype):
    for n in (63, 4095, 4097, 20011):
        check(name, scores(2, n, dtype=dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_dims_and_strides(name, dim):
    x = scores(6, 35, 8)
    check(name, x, dim)
    check(name, x.transpose(0, 2), dim)
    check(name, x[::2, 1:, ::3], dim)
    check(name, x[:1].expand(4, 35, 8), dim)
    check(name, x.to(torch.bfloat16).permute(1, 2, 0), dim, temperature=2.0)


@pytest.mark.parametrize("name", NAMES)
def test_masks_hide_whatever_they_cover(name):
    x = scores(3, 4, 37)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) > 0.4
    mask[0, 0], mask[0, 1, 0] = False, False
    x[0, 1, 0], x[0, 0, 3] = torch.nan, torch.inf
    check(name, x, -1, mask, temperature=0.7)
    check(name, scores(3, 4, 37), 1, mask[:1], temperature=3.0)
    check(name, scores(3, 4, 37), -1, mask[:, :1, :])


@pytest.mark.parametrize("name", sorted(OTHER_OPTIONS))
def test_options(name):
    for n in (19, 5000):
        check(name, scores(3, n), **OTHER_OPTIONS[name])
        check(name, scores(3, n), temperature=1.75, **OTHER_OPTIONS[name])


@pytest.mark.parametrize("shape", [(131_201, 64), (2051, 4099), (16_411, 512)], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sparsemax", "relu"])
def test_outputs_larger_than_the_caches(name, shape):
    x = scores(*shape)
    weights = rows.weights(name, {}, x, out=torch.full_like(x, torch.nan))
    few = torch.tensor([0, 1, 2, 17, shape[0] // 2, shape[0] - 2, shape[0] - 1])
    close(weights[few], oracle.weights(name, x[few]), torch.float32)
    torch.testing.assert_close(weights, rows.weights(name, {}, x.clone(), out=x), rtol=0, atol=0)
    if name == "softmax":
        torch.testing.assert_close(weights.sum(-1), torch.ones(shape[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [21, 5003, 300_001])
@pytest.mark.parametrize("name", NAMES)
def test_values_at_the_edge(name, n):
    x = scores(4, n)
    x[0] = -torch.inf
    x[1, :: max(2, n // 7)] = -torch.inf
    x[2, n // 2], x[3, n // 3] = torch.nan, torch.inf
    x[2, 0] = -torch.inf
    got = rows.weights(name, {}, x)
    if name == "logsumexp":
        assert got[0] == -torch.inf
        assert got[2].isnan()
        assert got[3] == torch.inf
        return
    hidden = -torch.inf if name.startswith("log") else 0.0
    assert (got[0] == hidden).all()
    assert (got[1][x[1] == -torch.inf] == hidden).all()
    assert got[1][x[1] != -torch.inf].isfinite().all()
    assert got[2, 0] == hidden
    if name in {"sigmoid", "relu", "squared_relu"}:
        assert got[2].isnan().sum() == 1
    else:
        assert got[2, 1:].isnan().all()
        assert got[3, n // 3].isnan() or hidden != 0


@pytest.mark.parametrize("n", [20, 100, 700, 9001, 200_003])
@pytest.mark.parametrize("name", ["softmax", "softmax1", "log_softmax", "logsumexp"])
def test_a_much_larger_score_comes_last(name, n):
    x = scores(17, n)
    x[:, -1] = torch.linspace(20, 500, 17)  # beyond what numerators relative to the first entries can hold
    check(name, x)


@pytest.mark.parametrize("n", [40, 700, 9001])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "log_stablemax"])
def test_gradients_of_entries_that_are_not_there_do_not_count(name, n):
    x = scores(20, n)
    x[::2, n // 3] = -torch.inf
    x[4] = -torch.inf
    upstream = scores(20, n, seed=1)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    expected = oracle.weights(name, theirs)
    (exact,) = torch.autograd.grad(torch.where(theirs == -torch.inf, 0, expected), theirs, upstream.double())
    (got,) = torch.autograd.grad(rows.weights(name, {}, ours), ours, torch.where(x == -torch.inf, torch.nan, upstream))
    close(got, exact, torch.float32, scale=8)


@pytest.mark.parametrize("size", [1e4, 3e6])
@pytest.mark.parametrize("name", ["softmax", "softmax1", "log_softmax", "logsumexp", "sparsemax", "entmax15"])
def test_large_scores(name, size):
    for n in (33, 9001):
        x = scores(3, n) + torch.tensor([size, -size, 0.0]).unsqueeze(-1)
        x[2, 0] = size
        check(name, x)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_threads_share_rows_and_a_long_row(name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(name, scores(5, 30_011))
        x = scores(1, 300_003)
        check(name, x)
        assert torch.equal(rows.weights(name, {}, x), rows.weights(name, {}, x))
    finally:
        torch.set_num_threads(before)


def test_calls_from_several_python_threads():
    inputs = [scores(40, 3001, seed=seed) for seed in range(4)]
    expected = [rows.weights("softmax", {}, x) for x in inputs]
    wrong: list[int] = []

    def work(which: int) -> None:
        for _ in range(20):
            same = torch.equal(rows.weights("softmax", {}, inputs[which]), expected[which])
            wrong.extend([] if same else [which])

    workers = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("name", [name for name in NAMES if name != "logsumexp"])
def test_in_place_and_out(name):
    for n in (50, 6000):
        x = scores(3, n)
        x[1, 4] = -torch.inf
        expected = rows.weights(name, {}, x)
        out = torch.full_like(x, torch.nan)
        assert rows.weights(name, {}, x, out=out) is out
        torch.testing.assert_close(out, expected, rtol=0, atol=0)
        rows.weights(name, {}, x, out=x)
        torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-7)
    x = scores(3, 50)
    with pytest.raises(ValueError, match="out: expected"):
        rows.weights(name, {}, x, out=torch.empty(3, 51))
    with pytest.raises(ValueError, match="out: expected"):
        rows.weights(name, {}, x.requires_grad_(), out=torch.empty(3, 50))


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_opcheck_and_compile(name, monkeypatch):
    monkeypatch.undo()
    x = scores(2, 3, 5, dtype=torch.float64).requires_grad_()
    mask = torch.ones(2, 1, 5, dtype=torch.bool)
    mask[0, 0, 2] = False
    numbers = rows.encode(name, {"temperature": 1.5, **OTHER_OPTIONS.get(name, {})})
    for dim, this in ((-1, None), (1, None if name.startswith("log") else mask)):
        assert torch.autograd.gradcheck(lambda x, d=dim, m=this: torch.ops.manymax.rows(x, name, numbers, d, m), x)
        assert torch.autograd.gradcheck(lambda x, d=dim, m=this: rows.weights(name, {}, x, d, m), x)
        torch.library.opcheck(torch.ops.manymax.rows.default, (x, name, numbers, dim, this))
    torch.compiler.reset()  # one name after the other would look like one function compiled again and again
    compiled = torch.compile(lambda x: rows.weights(name, {}, x * 2).sum(), fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(x), x)
    (expected,) = torch.autograd.grad(rows.weights(name, {}, x * 2).sum(), x)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["softmax", "softmax1", "log_softmax", "sparsemax", "entmax15"])
def test_second_derivatives_of_maps_that_go_back_from_their_weights(name):
    x = scores(3, 5, dtype=torch.float64).requires_grad_()
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(5)) > 0.3
    mask[1] = False
    for options in ({}, {"temperature": 2.5}):
        function = lambda x, options=options: rows.weights(name, options, x, 0, mask).clamp(min=-1e9)
        assert torch.autograd.gradgradcheck(function, x)
        y = function(x)
        upstream = scores(3, 5, dtype=torch.float64, seed=1)
        (once,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
        (again,) = torch.autograd.grad(y, x, upstream, create_graph=True)
        torch.testing.assert_close(once, again)


def test_second_derivatives_come_from_the_reference_or_are_refused():
    x = scores(3, 5, dtype=torch.float64).requires_grad_()
    reference = lambda x: oracle.log_stablemax(x, torch.ones_like(x, dtype=torch.bool))
    assert torch.autograd.gradgradcheck(lambda x: rows.weights("log_stablemax", {}, x, reference=reference), x)
    y = rows.weights("log_stablemax", {}, x)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)


@pytest.mark.parametrize("name", ["power_softmax", "spherical_softmax"])
def test_rows_of_zeros_and_of_tiny_scores(name):
    x = torch.zeros(2, 19)
    x[1] = 1e-24
    got = rows.weights(name, {"eps": 0.0}, x)
    assert (got[0] == 0).all()
    torch.testing.assert_close(got[1], torch.full((19,), 1 / 19))


def test_supports_gives_reasons():
    x = scores(3, 5)
    assert "no row kernel" in rows.supports("sinkhorn", {}, x)
    assert "no option slope" in rows.supports("softmax", {"slope": 1.0}, x)
    assert "as a number" in rows.supports("softmax", {"temperature": torch.ones(())}, x)
    assert "int64" in rows.supports("softmax", {}, x.long())
    assert "a dim that exists" in rows.supports("softmax", {}, x, 2)
    assert "not empty" in rows.supports("softmax", {}, x[:0])
    assert "bool mask" in rows.supports("softmax", {}, x, -1, x)
    assert "alpha above 1" in rows.supports("entmax", {"alpha": 1}, x)
    assert "up to 3 in 16 bits" in rows.supports("entmax", {"alpha": 3.5}, x.half())
    assert "powers up to" in rows.supports("taylor_softmax", {"order": 66}, x)


def test_functorch_and_modes_go_through_the_dispatcher():
    from torch.utils.flop_counter import FlopCounterMode

    x = scores(3, 5)
    assert ops.is_plain(x, None)
    with FlopCounterMode(display=False):
        assert not ops.is_plain(x, None)
        close(rows.weights("softmax", {}, x), oracle.weights("softmax", x), torch.float32)
