import math

import pytest
import torch
import torch.nn.functional as F
from head_cases import FIXED, NOT_LINEAR, WITHOUT_BIAS, make

import manymax as mm
from manymax.heads.registry import HEADS
from manymax.kernels import cross_entropy as kernel
from manymax.kernels.native import native

NAMES = mm.list_heads()


def case(name, classes=7, features=5, shape=(3, 4), dtype=torch.float64, **params):
    head = mm.create_head(name, in_features=features, num_classes=classes, **params).to(dtype)
    return head, torch.randn(*shape, features, dtype=dtype), torch.randint(classes, shape)


def stablemax_loss(scores, target):
    """-log of s(z_y) / sum s(z), written out with Python's numbers."""
    losses = []
    for row, y in zip(scores.tolist(), target.tolist(), strict=True):
        grown = [z + 1 if z >= 0 else 1 / (1 - z) for z in row]
        losses.append(-math.log(grown[y] / sum(grown)))
    return torch.tensor(losses, dtype=torch.float64)


def test_registry_names():
    assert sorted(HEADS) == NAMES


@pytest.mark.parametrize("name", sorted({*NAMES} - WITHOUT_BIAS - NOT_LINEAR))
def test_weight_is_classes_by_features_and_logits_are_linear(name):
    head, x, _ = case(name, bias=True)
    torch.nn.init.normal_(head.bias)
    assert head.weight.shape == (7, 5)
    torch.testing.assert_close(head.logits(x), x @ head.weight.T + head.bias)
    assert case(name)[0].bias is None


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [-100, 3])
def test_softmax_is_cross_entropy(reduction, smoothing, ignored):
    head, x, target = case("softmax", reduction=reduction, label_smoothing=smoothing, ignore_index=ignored, bias=True)
    target[0, :2] = ignored
    scores = (x @ head.weight.T + head.bias).flatten(0, 1)
    expected = F.cross_entropy(
        scores, target.flatten(), reduction=reduction, label_smoothing=smoothing, ignore_index=ignored
    )
    torch.testing.assert_close(head(x, target), expected.view(target.shape) if reduction == "none" else expected)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_stablemax_closed_form_and_reductions(scale):
    head, x, target = case("stablemax", reduction="none")
    target[0, 0] = -100
    x = scale * x
    kept = target != -100
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[kept] = stablemax_loss((x @ head.weight.T)[kept], target[kept])
    torch.testing.assert_close(head(x, target), expected)
    head.reduction = "mean"
    torch.testing.assert_close(head(x, target), expected[kept].mean())
    head.reduction = "sum"
    torch.testing.assert_close(head(x, target), expected.sum())


@pytest.mark.parametrize(("float64", "blind"), [(False, True), (True, False)])
def test_float64_sees_what_float32_absorbs(float64, blind):
    head = mm.create_head("softmax", in_features=2, num_classes=2, float64=float64)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    x = torch.tensor([[20.0, 0.0]], requires_grad=True)
    loss = head(x, torch.tensor([0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert (loss == 0) == blind
    # float32's log-softmax still tells 2e-9 from 0 backwards; what it loses is the target's own share.
    assert (x.grad[0, 0] == 0) == blind


def test_stablemax_float64_changes_the_precision():
    torch.manual_seed(1)
    losses = []
    for float64 in (False, True):
        torch.manual_seed(1)
        head = mm.create_head("stablemax", in_features=64, num_classes=512, float64=float64, reduction="none")
        losses.append(head(torch.randn(64, 64), torch.arange(64)))
    torch.testing.assert_close(*losses)
    assert not torch.equal(*losses)


@pytest.mark.parametrize("name", sorted({*NAMES} - FIXED - NOT_LINEAR))
def test_same_seed_same_weights_for_all_heads(name):
    weights = []
    for each in (name, "softmax"):
        torch.manual_seed(3)
        weights.append(mm.create_head(each, in_features=16, num_classes=64).weight)
    assert torch.equal(*weights)
    assert 0.22 < float(weights[0].detach().std()) < 0.28  # in_features^(-1/2) = 0.25


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"smoothing": 1}, TypeError, "softmax has no option 'smoothing'; it has .*did you mean 'label_smoothing'"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing: expected a number in \[0, 1\], got 1.5"),
        ({"lse_penalty": -1.0}, ValueError, "lse_penalty: expected at least 0, got -1.0"),
    ],
)
def test_bad_options(params, error, words):
    with pytest.raises(error, match=words):
        mm.create_head("softmax", in_features=4, num_classes=3, **params)


@pytest.mark.parametrize(
    "name", ["softmax", "infonce", "distillation", "equiangular-basis-vectors", "orthogonal-projection-loss"]
)
def test_cross_entropy_is_what_the_scores_say(name):
    head, x, target = make(name, reduction="none")
    target[0, 1] = -100
    torch.testing.assert_close(head(x, target), head.nll(x, target))


@pytest.mark.skipif(native() is None, reason="no native kernels")
@pytest.mark.parametrize(
    ("name", "calls"), [("infonce", 1), ("clip", 2), ("orthogonal-projection-loss", 1), ("focal", 0)]
)
def test_cross_entropy_is_the_native_kernels_in_whatever_head(monkeypatch, name, calls):
    head, x, target = case(
        name, classes=300, features=24, shape=(300,), dtype=torch.float32, ignore_index=7, chunk_size=48
    )
    target[3] = 7
    served = []
    original = kernel.cross_entropy
    monkeypatch.setattr(kernel, "cross_entropy", lambda *given: served.append(given[0].chunk_size) or original(*given))
    results = []
    for float64 in (False, True):
        head.float64 = float64
        leaf = x.clone().requires_grad_()
        loss = head(leaf, target)
        loss.backward()
        results.append((loss.detach(), leaf.grad, head.weight.grad.clone()))
        head.zero_grad()
        assert served == [48] * calls
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'stabelmax'; did you mean"):
        mm.create_head("stabelmax", in_features=4, num_classes=3)


@pytest.mark.parametrize("float64", [False, True])
def test_softmax_takes_probabilities_and_penalises_lse(float64):
    head, x, _ = case("softmax", label_smoothing=0.1, lse_penalty=0.3, float64=float64)
    target = torch.rand(3, 4, 7).softmax(-1)
    scores = x @ head.weight.T
    expected = F.cross_entropy(scores.flatten(0, 1), target.flatten(0, 1).double(), label_smoothing=0.1)
    expected = expected + 0.3 * scores.logsumexp(-1).square().mean()
    torch.testing.assert_close(head(x, target), expected)
    with pytest.raises(ValueError, match="target: expected no requires_grad; detach it"):
        head(x, target.requires_grad_())
