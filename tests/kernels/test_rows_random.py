"""Row kernels on random calls, against float64 and plain PyTorch in the same dtype; many threads; one huge row."""

from __future__ import annotations

import threading

import oracle
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from manymax.kernels import ops, rows
from manymax.kernels.native import native, status

pytestmark = pytest.mark.skipif(native() is None, reason=status())
NAMES = sorted(rows.OPTIONS)
# What float32 arithmetic may add to an error of 0, and what the last place of a result is.
TINY = {torch.float64: 4e-15, torch.float32: 4e-7, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@st.composite
def calls(draw) -> tuple[Tensor, int, Tensor | None, float]:
    """Draw scores of any layout, a dim, a mask that broadcasts, and a temperature."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 40, 130]), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    step = draw(st.sampled_from([1, 1, 2]))
    spread = draw(st.sampled_from([0.1, 2.0, 30.0]))
    wide = [*shape[:-1], shape[-1] * step + 1]
    x = (torch.randn(wide, generator=generator, dtype=torch.float64) * spread)[..., 1::step]
    x = x.to(draw(st.sampled_from(list(ops.DTYPES)))).permute(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        x = x.masked_fill(torch.rand(x.shape, generator=generator) < 0.1, -torch.inf)
    mask = None
    if draw(st.booleans()):
        kept = [size if draw(st.booleans()) else 1 for size in x.shape]
        mask = torch.rand(kept, generator=generator) > draw(st.sampled_from([0.0, 0.4, 0.9]))
    return x, draw(st.integers(-x.dim(), x.dim() - 1)), mask, draw(st.sampled_from([1.0, 0.6, 2.5]))


def plain(name: str, x: Tensor, dim: int, mask: Tensor | None, temperature: float) -> Tensor:
    """Return the formula computed in the dtype that PyTorch computes in, rounded to x's."""
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    return oracle.weights(name, x, dim, mask, temperature, work=work).to(x.dtype)


def errors(got: Tensor, exact: Tensor) -> Tensor:
    same = got.double() == exact  # of two infinities the difference is NaN
    return torch.where(same, 0, (got.double() - exact).abs())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
@pytest.mark.parametrize("name", NAMES)
def test_errors_are_at_most_twice_those_of_plain_torch(name, call):
    x, dim, mask, temperature = call
    assert rows.supports(name, {"temperature": temperature}, x, dim, mask) is None
    got = rows.weights(name, {"temperature": temperature}, x, dim, mask)
    exact = oracle.weights(name, x, dim, mask, temperature)
    theirs = errors(plain(name, x, dim, mask, temperature), exact).max()  # of an entry alone it is often 0 by luck
    scale = 1 + exact.abs().nan_to_num(0, 0, 0)
    if x.dtype == torch.float64:  # the exact values are no better than a rounding of the largest score
        scale = scale + x.abs().nan_to_num(0, 0, 0).max() / temperature
    allowed = 2 * theirs + TINY[x.dtype] * scale
    assert (errors(got, exact) <= allowed).all()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sparsemax", "stablemax"])
def test_results_do_not_depend_on_threads_or_neighbours(name, call):
    x, dim, mask, temperature = call
    options = {"temperature": temperature}
    expected = rows.weights(name, options, x, dim, mask)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(rows.weights(name, options, x, dim, mask), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "entmax15"])
@pytest.mark.parametrize("shape", [(3001, 40), (1, 300_007)], ids=str)
def test_calls_from_python_threads_at_once(name, shape):
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    expected = [rows.weights(name, {}, x) for x in inputs]
    wrong: list[int] = []

    def work(which: int) -> None:
        for _ in range(10):
            wrong.extend([] if torch.equal(rows.weights(name, {}, inputs[which]), expected[which]) else [which])

    workers = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.slow
def test_a_row_beyond_two_to_the_31_entries():
    n = 2**31 + 17
    x = torch.full((n,), -20.0, dtype=torch.bfloat16)  # 4.3 GB; the result is written over it
    x[[0, 2**31 - 1, 2**31, n - 1]] = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16)
    total = sum(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).exp().tolist()) + (n - 4) * 2.061153622438558e-9
    lse = rows.weights("logsumexp", {}, x)
    torch.testing.assert_close(lse.double(), torch.tensor(total).double().log(), rtol=4e-3, atol=0)
    rows.weights("softmax", {}, x, out=x)
    for at, score in ((0, 1.0), (2**31 - 1, 2.0), (2**31, 3.0), (n - 1, 4.0), (5, -20.0), (n - 2, -20.0)):
        expected = float(torch.tensor(score, dtype=torch.float64).exp()) / total
        assert float(x[at]) == pytest.approx(expected, rel=8e-3)
