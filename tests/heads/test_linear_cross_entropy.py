"""The fused output layer against the plain formula: every option, by itself and with all others."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads import chunk as chunk_module
from manymax.heads.linear_cross_entropy_loss import LinearCrossEntropyLoss

N, D, C = 23, 7, 19
OPTIONS = {
    "bias": [False, True],
    "weight": [False, True],
    "token_weight": [False, True],
    "reduction": ["mean", "sum", "none"],
    "label_smoothing": [0.0, 0.3],
    "softcap": [None, 2.0],
    "lse_penalty": [0.0, 0.1],
    "target": ["classes", "probabilities"],
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]


def make(options, dtype=torch.float64, seed=0):
    """Return the call's tensors and keywords."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    target = torch.randint(C, (N,), generator=generator)
    target[[2, 11]] = -100
    if options["target"] == "probabilities":
        target = random(N, C).softmax(-1)
    leaves = {"input": 2 * random(N, D), "linear_weight": random(C, D)}
    if options["bias"]:
        leaves["linear_bias"] = random(C)
    if options["target"] == "probabilities":
        leaves["target"] = target
    fixed = {} if "target" in leaves else {"target": target}
    for name, count in (("weight", C), ("token_weight", N)):
        if options[name]:
            fixed[name] = random(count).abs()
    rest = {key: options[key] for key in ("reduction", "label_smoothing", "softcap", "lse_penalty")}
    return leaves, fixed | rest


def plain(
    input,
    linear_weight,
    target,
    *,
    linear_bias=None,
    weight=None,
    token_weight=None,
    reduction,
    label_smoothing,
    softcap,
    lse_penalty,
    ignore_index=-100,
):
    """The docstring's formula, with all scores at once."""
    z = F.linear(input, linear_weight, linear_bias)
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    lse = z.logsumexp(-1)
    w = torch.ones(C, dtype=z.dtype) if weight is None else weight
    share = torch.ones(len(z), dtype=z.dtype) if token_weight is None else token_weight
    kept = torch.ones(len(z), dtype=torch.bool)
    counted = share
    if not target.is_floating_point():
        kept = target != ignore_index
        classes = torch.where(kept, target, 0)
        counted = torch.where(kept, share * w[classes], 0)
        target = F.one_hot(classes, C).to(z.dtype)
    p = (1 - label_smoothing) * target + label_smoothing / C
    losses = (w * p * (lse[:, None] - z)).sum(-1) + lse_penalty * lse**2
    losses = torch.where(kept, share * losses, 0)
    loss = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / counted.sum()}[reduction]
    return loss, lse


def gradients(call, leaves, fixed, factor, **more):
    """Return the results and every gradient of a sum of theirs that weighs all of them."""
    leaves = {name: x.clone().requires_grad_() for name, x in leaves.items()}
    results = call(**leaves, **fixed, **more)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((factor[: x.numel()].view(x.shape) * x).sum() for x in results)
    return [*results, *torch.autograd.grad(total, list(leaves.values()))]


@pytest.mark.parametrize("return_lse", [False, True])
@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_all_options_together(options, return_lse):
    leaves, fixed = make(options)
    factor = torch.linspace(0.5, 2, N, dtype=torch.float64)
    expected = gradients(lambda **given: plain(**given) if return_lse else plain(**given)[0], leaves, fixed, factor)
    found = gradients(mm.linear_cross_entropy, leaves, fixed, factor, return_lse=return_lse, chunk_size=5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


EVERYTHING = {key: values[-1] for key, values in OPTIONS.items()} | {"target": "classes", "reduction": "mean"}


@pytest.mark.parametrize("size", [1, 2, 22, 23, 100, None])
@pytest.mark.parametrize("reduction", OPTIONS["reduction"])
def test_chunks_change_nothing(size, reduction):
    leaves, fixed = make(EVERYTHING | {"reduction": reduction})
    factor = torch.linspace(1, 2, N, dtype=torch.float64)
    expected = gradients(mm.linear_cross_entropy, leaves, fixed, factor, chunk_size=7)
    for one, other in zip(
        gradients(mm.linear_cross_entropy, leaves, fixed, factor, chunk_size=size), expected, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reduction", OPTIONS["reduction"])
@pytest.mark.parametrize("smooth", [0.0, 0.2])
def test_torch_agrees(reduction, smooth):
    leaves, fixed = make(EVERYTHING | {"softcap": None, "lse_penalty": 0.0, "token_weight": False})
    given = {"weight": fixed["weight"], "reduction": reduction, "label_smoothing": smooth}
    out = mm.linear_cross_entropy(**leaves, target=fixed["target"], **given)
    scores = F.linear(leaves["input"], leaves["linear_weight"], leaves["linear_bias"])
    torch.testing.assert_close(out, F.cross_entropy(scores, fixed["target"], **given))


def test_gradcheck():
    leaves, fixed = make(EVERYTHING | {"target": "probabilities"})
    leaves = {name: x[:4] if name in {"input", "target"} else x for name, x in leaves.items()}
    fixed["token_weight"] = fixed["token_weight"][:4]
    inputs = [x.requires_grad_() for x in leaves.values()]

    def call(*tensors, **more):
        return mm.linear_cross_entropy(**dict(zip(leaves, tensors, strict=True)), **fixed, **more)

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradcheck(lambda *tensors: call(*tensors, return_lse=True, chunk_size=3), inputs)


def test_any_number_of_dims():
    torch.manual_seed(0)
    input, weight, target = torch.randn(2, 3, 4, D), torch.randn(C, D), torch.randint(C, (2, 3, 4))
    losses, lse = mm.linear_cross_entropy(input, weight, target, reduction="none", return_lse=True)
    assert losses.shape == lse.shape == target.shape
    torch.testing.assert_close(lse, (input @ weight.T).logsumexp(-1))
    one = mm.linear_cross_entropy(input[1, 2, 3], weight, target[1, 2, 3], reduction="none")
    torch.testing.assert_close(one, losses[1, 2, 3])
    assert one.shape == ()


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"return_lse": True}, {"label_smoothing": 0.1}], ids=str)
def test_all_tokens_ignored_give_zero(options):
    input, weight = torch.randn(3, D, requires_grad=True), torch.randn(C, D, requires_grad=True)
    found = mm.linear_cross_entropy(input, weight, torch.full((3,), -100), **options)
    loss = found[0] if isinstance(found, tuple) else found
    loss.backward()
    assert loss.item() == 0
    assert (input.grad == 0).all()
    assert (weight.grad == 0).all()


def test_ignored_tokens_may_hold_anything_and_no_tokens_give_zero():
    input, weight = torch.randn(3, D), torch.randn(C, D)
    target = torch.tensor([1, 7, 2])
    kept = mm.linear_cross_entropy(input[[0, 2]], weight, target[[0, 2]])
    assert mm.linear_cross_entropy(input, weight, target, ignore_index=7) == pytest.approx(kept.item())
    assert mm.linear_cross_entropy(input[:0], weight, target[:0]).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_errors_are_no_larger_than_twice_torchs(dtype):
    options = EVERYTHING | {"softcap": None, "lse_penalty": 0.0, "token_weight": False}
    leaves, fixed = make(options, dtype=torch.float64)
    given = {"weight": fixed["weight"], "label_smoothing": 0.3}
    target, factor = {"target": fixed["target"]}, torch.ones(N, dtype=torch.float64)

    def torchs(input, linear_weight, target, linear_bias, weight, label_smoothing):
        scores = F.linear(input, linear_weight, linear_bias)
        return F.cross_entropy(scores, target, weight=weight, label_smoothing=label_smoothing)

    rounded = {name: x.to(dtype) for name, x in leaves.items()}
    weight = given["weight"].to(dtype)
    oracle = {name: x.double() for name, x in rounded.items()}
    exact = gradients(torchs, oracle, target | given | {"weight": weight.double()}, factor)
    theirs = gradients(torchs, rounded, target | given | {"weight": weight}, factor)
    ours = gradients(mm.linear_cross_entropy, rounded, target | given | {"weight": weight, "chunk_size": 6}, factor)
    assert ours[0].dtype == torch.float32
    for mine, other, truth in zip(ours, theirs, exact, strict=True):
        bound = 2 * (other.double() - truth).norm() + torch.finfo(dtype).eps * truth.norm()
        assert (mine.double() - truth).norm() <= bound


def test_a_scaled_loss_keeps_gradients_that_float16_does_not_hold():
    generator = torch.Generator().manual_seed(0)
    shapes = (4000, 8), (300, 8)
    input, weight = (torch.randn(shape, generator=generator).half().requires_grad_() for shape in shapes)
    target = torch.arange(4000) % 300
    (65536 * mm.linear_cross_entropy(input, weight, target)).backward()
    exact = [x.detach().double().requires_grad_() for x in (input, weight)]
    (65536 * F.cross_entropy(exact[0] @ exact[1].T, target)).backward()
    for x, true in zip((input, weight), exact, strict=True):
        assert (x.grad.double() - true.grad).norm() <= 1e-3 * true.grad.norm()


def test_extreme_scores_stay_finite():
    input, weight = (
        torch.full((2, 1), 1e4, requires_grad=True),
        torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True),
    )
    loss = mm.linear_cross_entropy(input, weight, torch.tensor([0, 1]), reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [0, 2e4]
    assert input.grad.isfinite().all()
    assert weight.grad.isfinite().all()
    capped = mm.linear_cross_entropy(input, weight, torch.tensor([1, 1]), softcap=30.0)
    assert capped.item() == pytest.approx(60 + math.log(2), abs=1e-3)


@pytest.mark.parametrize("options", COMBINATIONS[:: len(COMBINATIONS) // 48], ids=str)
def test_no_option_holds_more_scores_than_a_chunk(options, monkeypatch):
    held = []
    original = chunk_module.Chunk.__init__

    def noting(self, *given):
        original(self, *given)
        held.append(self.scores.numel())

    monkeypatch.setattr(chunk_module.Chunk, "__init__", noting)
    leaves, fixed = make(options)
    gradients(mm.linear_cross_entropy, leaves, fixed, torch.ones(N, dtype=torch.float64), chunk_size=4)
    assert max(held) == 4 * C
    assert len(held) == math.ceil(N / 4) * (2 if options["reduction"] == "none" else 1)


def test_autocast():
    input, weight = torch.randn(9, D, requires_grad=True), torch.randn(C, D, requires_grad=True)
    target = torch.randint(C, (9,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mm.linear_cross_entropy(input, weight, target)
    loss.backward()
    low = F.cross_entropy((input.bfloat16() @ weight.bfloat16().T).float(), target)
    assert loss.item() == pytest.approx(low.item(), rel=1e-5)
    assert input.grad.dtype == weight.grad.dtype == torch.float32


def test_autocast_takes_features_that_it_has_made_and_leaves_float64_alone():
    input, weight, target = torch.randn(9, D), torch.randn(C, D), torch.randint(C, (9,))
    low = mm.linear_cross_entropy(input.bfloat16(), weight.bfloat16(), target)
    exact = mm.linear_cross_entropy(input.double(), weight.double(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mm.linear_cross_entropy(input.bfloat16(), weight, target), low)
        assert torch.equal(mm.linear_cross_entropy(input.double(), weight.double(), target), exact)
        with pytest.raises(
            ValueError, match=r"linear_weight: expected torch.bfloat16, as the input, got torch.float64"
        ):
            mm.linear_cross_entropy(input, weight.double(), target)


def test_frozen_tensors_have_no_gradient():
    input, weight = torch.randn(3, D, requires_grad=True), torch.randn(C, D)
    mm.linear_cross_entropy(input, weight, torch.tensor([0, 1, 2])).backward()
    assert input.grad is not None
    assert weight.grad is None


def test_wrong_arguments():
    input, weight, target = torch.randn(3, D), torch.randn(C, D), torch.tensor([0, 1, 2])
    wrong = {
        f"linear_weight: expected (classes, {D}), got (3, 4)": {"linear_weight": torch.randn(3, 4)},
        "linear_weight: expected torch.float32, as the input, got torch.float64": {"linear_weight": weight.double()},
        "target: expected shape (3,), got (2,)": {"target": target[:2]},
        f"target: expected shape (3, {C}), got (3,)": {"target": target.float()},
        "target: expected int64 classes or floating probabilities, got torch.int32": {"target": target.int()},
        f"linear_bias: expected shape ({C},), got (3,)": {"linear_bias": torch.randn(3)},
        f"weight: expected shape ({C},), got (3,)": {"weight": torch.randn(3)},
        f"token_weight: expected shape (3,), got ({C},)": {"token_weight": torch.randn(C)},
        "reduction: expected 'none', 'mean' or 'sum', got 'avg'": {"reduction": "avg"},
        "label_smoothing: expected a number in [0, 1], got 1.5": {"label_smoothing": 1.5},
        "softcap: expected a positive number or None, got 0": {"softcap": 0},
        "lse_penalty: expected at least 0, got -1": {"lse_penalty": -1},
        "chunk_size: expected at least 1, got 0": {"chunk_size": 0},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match="expected") as raised:
            mm.linear_cross_entropy(**{"input": input, "linear_weight": weight, "target": target} | change)
        assert str(raised.value) == message


@pytest.mark.parametrize("return_lse", [False, True])
def test_the_module_is_the_function(return_lse):
    leaves, fixed = make(EVERYTHING)
    options = {"filter_eps": 0.1, "chunk_size": 4, "return_lse": return_lse, "ignore_index": 3}
    options |= {key: fixed[key] for key in ("label_smoothing", "softcap", "lse_penalty")} | {"reduction": "sum"}
    module = LinearCrossEntropyLoss(fixed["weight"], **options)
    given = {"linear_bias": leaves["linear_bias"], "token_weight": fixed["token_weight"]}
    target = fixed["target"].clamp_min(0)
    found = module(leaves["input"], leaves["linear_weight"], target, **given)
    expected = mm.linear_cross_entropy(
        leaves["input"], leaves["linear_weight"], target, weight=fixed["weight"], **given, **options
    )
    assert isinstance(found, tuple) == return_lse
    for one, other in zip(*(x if return_lse else (x,) for x in (found, expected)), strict=True):
        assert torch.equal(one, other)
    assert "weight" in module.state_dict()


def test_filter_eps_is_checked():
    leaves, fixed = make(EVERYTHING)
    with pytest.raises(ValueError, match=r"filter_eps: expected a number in \[0, 1\), got 1.0"):
        mm.linear_cross_entropy(leaves["input"], leaves["linear_weight"], fixed["target"], filter_eps=1.0)
