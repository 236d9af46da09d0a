"""The native kernel of the fused output layer against the plain chunks in float64; test_isas.py repeats this file."""

import itertools

import pytest
import torch

import manymax as mm
from manymax.heads import linear_loss
from manymax.heads.chunk import Settings, Tensors
from manymax.kernels import cross_entropy as kernel
from manymax.kernels.native import native

pytestmark = pytest.mark.skipif(native() is None, reason="no native kernels")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PLAIN = {"label_smoothing": 0.0, "softcap": None, "lse_penalty": 0.0, "filter_eps": 0.0}
OPTIONS = [
    {},
    {"label_smoothing": 0.3},
    {"softcap": 2.0},
    {"lse_penalty": 0.1},
    {"label_smoothing": 0.2, "softcap": 3.0, "lse_penalty": 0.05},
]


def make(tokens, classes, dim, dtype, *, soft=False, bias=True, weight=False, seed=0):
    """Return tensors whose values every dtype has exactly."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator)).to(torch.bfloat16).to(dtype)

    target = torch.randint(classes, (tokens,), generator=generator)
    if soft:
        target = (3 * torch.randn(tokens, classes, generator=generator)).softmax(-1)
    return Tensors(
        random(tokens, dim, scale=2),
        random(classes, dim, scale=dim**-0.5),
        random(classes).float() if bias else None,
        target,
        torch.rand(classes, generator=generator) + 0.5 if weight else None,
        torch.rand(tokens, generator=generator) + 0.5,
    )


def exactly(tensors):
    return Tensors(*(x.double() if x is not None and x.is_floating_point() else x for x in tensors))


def run(call, tensors, options, d_losses, d_lse, chunk_size=None, ignored=-100):
    settings = Settings(ignored, **(PLAIN | options), chunk_size=chunk_size)
    losses, lse, gradients = call(
        tensors, settings, d_losses, d_lse, (True, True, tensors.linear_bias is not None, False)
    )
    return [losses, lse, *(x for x in gradients if x is not None)]


def assert_accurate(tensors, options, chunk_size=None, with_lse=True):
    """Every result's error is at most twice that of the plain chunks in the same dtype."""
    count = len(tensors.input)
    d_losses = torch.linspace(0.5, 1.5, count)
    d_lse = torch.linspace(-1, 1, count) if with_lse else None
    exact = run(linear_loss._plain, exactly(tensors), options, d_losses, d_lse)
    plain = run(linear_loss._plain, tensors, options, d_losses, d_lse)
    found = run(linear_loss.evaluate, tensors, options, d_losses, d_lse, chunk_size)
    assert len(found) == len(plain)
    for name, ours, theirs, true in zip(["losses", "lse", "input", "rows", "bias"], found, plain, exact, strict=False):
        assert ours.shape == true.shape
        if name == "rows" and tensors.linear_weight.dtype == torch.bfloat16:
            theirs = theirs.bfloat16()  # noqa: PLW2901 - the kernel rounds the sum of all tokens itself
        assert ours.dtype == theirs.dtype
        eps = torch.finfo(ours.dtype).eps
        wrong, plainly = ((x.double() - true).norm() for x in (ours, theirs))
        assert wrong <= 2 * plainly + 2 * eps * true.norm(), f"{name}: {wrong:.2e}, plain {plainly:.2e}"


@pytest.fixture(autouse=True)
def served(monkeypatch):
    """Note the kernel's calls, and fill new memory with NaN, so that what stays unwritten shows."""
    calls, call, empty = [], kernel.cross_entropy, torch.empty

    def noted(*given, **more):
        calls.append(given)
        return call(*given, **more)

    monkeypatch.setattr(kernel, "cross_entropy", noted)
    monkeypatch.setattr(torch, "empty", lambda *size, **more: empty(*size, **more).fill_(torch.nan))
    return calls


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("soft", "weight"), [(False, False), (False, True), (True, False), (True, True)])
def test_options(options, soft, weight, dtype, served):
    assert_accurate(make(41, 300, 24, dtype, soft=soft, weight=weight), options)
    assert len(served) == 1


SIZES = [
    *itertools.product([1, 15, 97], [256, 257, 683], [1, 17, 130]),
    (5, 96 * 5, 64),
    (300, 576, 128),  # two chunks, as pairs too
    (0, 300, 17),
    (96, 288, 257),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("tokens", "classes", "dim"), SIZES)
def test_sizes(tokens, classes, dim, dtype):
    assert_accurate(make(tokens, classes, dim, dtype, bias=dim % 2 == 0), {"label_smoothing": 0.1}, with_lse=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 16, 30, 48, 1000])
def test_chunks_change_little(size, dtype):
    assert_accurate(make(103, 401, 40, dtype), OPTIONS[-1], chunk_size=size)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_threads(threads, dtype):
    before = torch.get_num_threads()
    tensors = make(50, 700, 40, dtype)
    torch.set_num_threads(threads)
    try:
        assert_accurate(tensors, OPTIONS[-1])
        d_losses = torch.ones(50)
        first, second = (run(linear_loss.evaluate, tensors, {}, d_losses, None) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides(dtype):
    whole = make(37, 600, 50, dtype)
    tensors = whole._replace(input=whole.input[::2, 3:40], linear_weight=whole.linear_weight[1::2, 5:42])
    tensors = tensors._replace(
        target=whole.target[::2] // 2, shares=whole.shares[::2], linear_bias=whole.linear_bias[:300]
    )
    assert_accurate(tensors, {})
    across = tensors._replace(
        input=tensors.input.T.contiguous().T, linear_weight=tensors.linear_weight.T.contiguous().T
    )
    assert_accurate(across, {})


@pytest.mark.parametrize("scale", [1e4, 3e30])
def test_large_scores(scale):
    tensors = make(20, 300, 16, torch.float32)
    tensors = tensors._replace(input=tensors.input * scale)
    losses, lse, *gradients = run(linear_loss.evaluate, tensors, {}, torch.ones(20), None)
    scores = tensors.input @ tensors.linear_weight.T + tensors.linear_bias
    torch.testing.assert_close(lse, scores.logsumexp(-1))
    expected = tensors.shares * (lse - scores.gather(1, tensors.target[:, None])[:, 0])
    torch.testing.assert_close(losses, expected)
    assert all(torch.isfinite(x).all() for x in gradients[:1])


def test_a_bias_of_minus_infinity_removes_a_class():
    tensors = make(20, 300, 16, torch.float32)
    tensors.linear_bias[7] = -torch.inf
    tensors.target[tensors.target == 7] = 8
    losses, lse, d_input, d_rows, d_bias = run(linear_loss.evaluate, tensors, {}, torch.ones(20), None)
    rest = [x for x in range(300) if x != 7]
    less = tensors._replace(
        linear_weight=tensors.linear_weight[rest],
        linear_bias=tensors.linear_bias[rest],
        target=tensors.target - (tensors.target > 7).long(),
    )
    expected = run(linear_loss.evaluate, less, {}, torch.ones(20), None)
    torch.testing.assert_close([losses, lse, d_input, d_rows[rest], d_bias[rest]], expected, rtol=1e-4, atol=1e-5)
    assert (d_rows[7] == 0).all()
    assert d_bias[7] == 0


def test_nan_stays_in_its_token():
    tensors = make(40, 300, 16, torch.float32)
    tensors.input[5, 3] = torch.nan
    losses, lse, d_input, d_rows, _ = run(linear_loss.evaluate, tensors, {}, torch.ones(40), None)
    assert torch.equal(losses.isnan(), torch.arange(40) == 5)
    assert torch.equal(lse.isnan(), torch.arange(40) == 5)
    assert torch.equal(d_input.isnan().any(1), torch.arange(40) == 5)
    assert d_rows.isnan().any()


def test_an_ignored_token_has_no_gradient_whatever_its_scores_are(served):
    given = make(40, 300, 16, torch.float32)
    x = given.input.clone()
    x[5] = 3e38  # scores are infinite
    x.requires_grad_()
    target = torch.where(torch.arange(40) == 5, -100, given.target)
    loss, lse = mm.linear_cross_entropy(x, given.linear_weight, target, return_lse=True)
    loss.backward()
    assert len(served) == 2
    assert not lse[5].isfinite()
    assert (x.grad[5] == 0).all()
    assert (x.grad[:5] != 0).any(1).all()


def test_a_filtered_block_keeps_its_targets(served):
    given = make(40, 300, 16, torch.float32)
    bias = torch.zeros(300)
    bias[0] = 30.0  # takes all probability: gradients of other classes are e^-30, but for the targets'
    target = given.target.clamp(min=100)
    grads = []
    for eps in (0.0, 1e-3):
        x = given.input.clone().requires_grad_()
        mm.linear_cross_entropy(x, given.linear_weight, target, linear_bias=bias, filter_eps=eps).backward()
        grads.append(x.grad)
    assert len(served) == 2
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("ignored", [-100, 7])
def test_ignored_tokens_count_for_lse_alone(ignored, served):
    given = make(60, 300, 24, torch.float32)
    target = given.target.clone()
    target[[3, 30, 59]] = ignored
    x = given.input.clone().requires_grad_()
    loss, lse = mm.linear_cross_entropy(x, given.linear_weight, target, ignore_index=ignored, return_lse=True)
    assert len(served) == 1
    scores = given.input @ given.linear_weight.T
    torch.testing.assert_close(lse, scores.logsumexp(-1))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, target, ignore_index=ignored))
    loss.backward()
    assert (x.grad[target == ignored] == 0).all()
    assert (x.grad[target != ignored] != 0).any(1).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_filter_leaves_out_what_is_small(dtype, monkeypatch):
    tensors = make(40, 960, 32, dtype, bias=False)
    tensors.linear_weight[192:] = -tensors.linear_weight[192:].abs()  # of positive inputs: blocks without weight
    tensors = tensors._replace(input=8 * tensors.input.abs(), target=tensors.target % 192)
    full, less = (
        run(linear_loss.evaluate, tensors, {"filter_eps": eps}, torch.full((40,), 0.1), None) for eps in (0.0, 1e-4)
    )
    assert (full[3][192:] != 0).any()
    assert (less[3][192:] == 0).all()
    torch.testing.assert_close(less[3][:192], full[3][:192])
    torch.testing.assert_close(less[2], full[2], rtol=2e-2, atol=2e-3)


def test_what_the_kernel_does_not_take(served):
    few, double = make(5, 255, 8, torch.float32), make(5, 300, 8, torch.float64)
    for tensors in (few, double):
        mm.linear_cross_entropy(tensors.input, tensors.linear_weight, tensors.target)
    soft = make(5, 300, 8, torch.float32, soft=True)
    loss = mm.linear_cross_entropy(soft.input, soft.linear_weight, soft.target.requires_grad_())
    loss.backward()
    assert soft.target.grad is not None
    assert served == []


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_backward_twice_and_scaled(dtype):
    given = make(30, 300, 16, dtype)
    x, w = given.input.requires_grad_(), given.linear_weight.requires_grad_()
    loss = mm.linear_cross_entropy(x, w, given.target)
    first = [g.clone() for g in torch.autograd.grad(loss, [x, w], retain_graph=True)]
    again = torch.autograd.grad(3 * loss, [x, w])
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(3 * a, b)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("options", [{}, {"return_lse": True, "softcap": 5.0}, {"reduction": "none"}], ids=str)
def test_compiled_calls_go_to_the_kernel(options, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.undo()
    given = make(30, 300, 16, torch.float32)
    given.target[[2, 29]] = -100
    if "return_lse" not in options:
        given.input[2] = torch.nan
    calls, call = [], kernel._call
    monkeypatch.setattr(kernel, "_call", lambda *args: calls.append(args) or call(*args))

    def loss(x, w):
        found = mm.linear_cross_entropy(x, w, given.target, **options)
        return sum(part.mean() for part in found) if isinstance(found, tuple) else found.mean()

    def run(function):
        leaves = [x.clone().requires_grad_() for x in (given.input, given.linear_weight)]
        found = function(*leaves)
        return found, *torch.autograd.grad(found, leaves)

    expected, eager = run(loss), len(calls)
    torch.testing.assert_close(run(torch.compile(loss, fullgraph=True, backend="aot_eager")), expected)
    assert len(calls) == 2 * eager > 0


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_calls_refuse_wrong_targets(monkeypatch):
    monkeypatch.undo()
    given = make(30, 300, 16, torch.float32)
    compiled = torch.compile(mm.linear_cross_entropy, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"target: expected classes in \[0, 300\) or -100"):
        compiled(given.input, given.linear_weight, given.target + 300)


@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (False, False, False)])
@pytest.mark.parametrize(("soft", "bias", "dtype"), [(False, True, torch.float32), (True, False, torch.bfloat16)])
def test_opcheck(needs, soft, bias, dtype, monkeypatch):
    monkeypatch.undo()
    x = Settings(-100, **PLAIN, chunk_size=None).kernel_inputs(
        make(20, 300, 16, dtype, soft=soft, bias=bias, weight=True)
    )
    torch.library.opcheck(torch.ops.manymax.cross_entropy, (*x, torch.ones(20), torch.ones(20), list(needs)))


@pytest.mark.parametrize("wrong", [-1, 300])
def test_targets_out_of_range(wrong):
    given = make(4, 300, 8, torch.float32)
    with pytest.raises(ValueError, match=rf"target: expected classes in \[0, 300\) or -100, got {wrong}"):
        mm.linear_cross_entropy(given.input, given.linear_weight, given.target.index_fill(0, torch.tensor([2]), wrong))
