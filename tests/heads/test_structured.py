"""Adaptive, hierarchical and sampled softmax."""

import math

import pytest
import torch
import torch.nn.functional as F
from head_cases import make
from torch.func import functional_call

import manymax as mm
from manymax.heads.adaptive import default_cutoffs
from manymax.heads.sampled import draw, log_chance


def test_adaptive_softmax_is_torchs():
    head, x, target = make("adaptive-softmax", {"cutoffs": [3, 5], "div_value": 2.0, "head_bias": True}, shape=(40,))
    expected = head.adaptive(x, target)
    torch.testing.assert_close(head(x, target), expected.loss)
    head.reduction = "none"
    torch.testing.assert_close(head(x, target), -expected.output)
    torch.testing.assert_close(head.logits(x), head.adaptive.log_prob(x))
    assert head.adaptive.head.bias is not None


def test_adaptive_softmax_has_cutoffs_and_widths_that_fit():
    assert default_cutoffs(100_000) == [5000, 20_000]
    assert default_cutoffs(2) == [1]
    wide = mm.create_head("adaptive-softmax", in_features=512, num_classes=1000)
    assert [tail[0].out_features for tail in wide.adaptive.tail] == [128, 32]
    narrow = mm.create_head("adaptive-softmax", in_features=32, num_classes=1000)
    assert [tail[0].out_features for tail in narrow.adaptive.tail] == [16, 8]


@pytest.mark.parametrize("cutoffs", [[], [2, 2], [3, 2], [0, 2], [7]])
def test_adaptive_softmax_refuses_cutoffs(cutoffs):
    with pytest.raises(ValueError, match=r"cutoffs: expected increasing numbers in \[1, 6\]"):
        mm.create_head("adaptive-softmax", in_features=4, num_classes=7, cutoffs=cutoffs)


def test_adaptive_softmax_refuses_what_leaves_nothing():
    with pytest.raises(ValueError, match="div_value: expected to leave the last cluster a feature"):
        mm.create_head("adaptive-softmax", in_features=4, num_classes=7, cutoffs=[2, 4], div_value=4.0)
    with pytest.raises(ValueError, match="num_classes: expected at least 2"):
        mm.create_head("adaptive-softmax", in_features=4, num_classes=1)


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 6, 8, 13])
def test_hierarchical_softmax_walks_the_heap(classes):
    head, x, _ = make("hierarchical-softmax", classes=classes, shape=(1,), reduction="none")
    probabilities = []
    for c in range(classes):
        place, p = classes + c, 1.0
        while place > 1:
            score = float(head.nodes[place // 2 - 1].detach() @ x[0])
            p *= 1 / (1 + math.exp(score if place % 2 else -score))
            place //= 2
        probabilities.append(p)
    assert sum(probabilities) == pytest.approx(1)
    assert head.logits(x)[0].exp().tolist() == pytest.approx(probabilities)
    for c in range(classes):
        assert float(head(x, torch.tensor([c])).detach()) == pytest.approx(-math.log(probabilities[c]))


def test_gradients_are_of_the_parameters_given_though_the_module_holds_others_later():
    head, x, target = make("hierarchical-softmax", shape=(6,), chunk_size=2)
    given = torch.randn_like(head.nodes).requires_grad_()
    functional_call(head, {"nodes": given}, (x, target)).backward()
    head.nodes.data.copy_(given.detach())
    head(x, target).backward()
    torch.testing.assert_close(given.grad, head.nodes.grad)


@pytest.mark.parametrize("distribution", ["log-uniform", "uniform"])
def test_draws_have_the_chances_said(distribution):
    torch.manual_seed(0)
    chosen = draw(200_000, 30, distribution, torch.device("cpu"))
    shares = chosen.bincount(minlength=30).double() / len(chosen)
    chances = log_chance(torch.arange(30), 30, distribution).exp()
    assert float(chances.sum()) == pytest.approx(1)
    assert ((shares - chances).abs() < 5 * (chances / len(chosen)).sqrt()).all()


@pytest.mark.parametrize("distribution", ["log-uniform", "uniform"])
def test_the_sampled_sum_is_the_whole_one_in_expectation(distribution):
    options = {"num_samples": 5, "distribution": distribution}
    head, x, target = make("sampled-softmax", options, classes=12, shape=(4,), reduction="none")
    scores = x @ head.weight.T + head.bias
    own = scores.gather(1, target[:, None])[:, 0]
    torch.manual_seed(0)
    with torch.no_grad():
        sums = torch.stack([(head(x, target) + own).exp() for _ in range(400)])
    error = sums.std(0) / 20
    assert ((sums.mean(0) - scores.exp().sum(1)).abs() < 4 * error).all()


def test_the_sampled_loss_by_hand_and_its_gradient():
    head, x, target = make("sampled-softmax", {"num_samples": 6}, classes=9, shape=(5,), chunk_size=2)
    target[0] = -100
    torch.manual_seed(3)
    chosen = draw(6, 9, "log-uniform", torch.device("cpu"))
    torch.manual_seed(3)
    loss = head(x, target)
    loss.backward()
    scores = F.linear(x, head.weight, head.bias)
    losses = []
    for row, y in zip(scores[1:], target[1:].tolist(), strict=True):
        q = torch.log1p(1 / (chosen.double() + 1)) / math.log(10)
        others = sum((row[j] - (6 * q[i]).log()).exp() for i, j in enumerate(chosen.tolist()) if j != y)
        losses.append((row[y].exp() + others).log() - row[y])
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(loss, expected)
    found = [p.grad for p in head.parameters()]
    torch.testing.assert_close(found, list(torch.autograd.grad(expected, list(head.parameters()))))


def test_sampling_stops_in_evaluation_and_where_it_saves_nothing():
    head, x, target = make("sampled-softmax", {"num_samples": 3}, classes=9)
    expected = F.cross_entropy(head.logits(x).flatten(0, 1), target.flatten())
    assert not torch.allclose(head(x, target), expected)
    torch.testing.assert_close(head.eval()(x, target), expected)
    whole, x, target = make("sampled-softmax", {"num_samples": 9}, classes=9)
    torch.testing.assert_close(whole(x, target), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_samples": 0}, "num_samples: expected at least 1"), ({"distribution": "zipf"}, "distribution: expected")],
)
def test_sampled_softmax_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("sampled-softmax", in_features=4, num_classes=7, **options)


@pytest.mark.parametrize("name", ["adaptive-softmax", "hierarchical-softmax", "pointer-networks"])
def test_no_bias(name):
    with pytest.raises(ValueError, match="bias: expected False"):
        mm.create_head(name, in_features=4, num_classes=7, bias=True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adaptive-softmax", {}),
        ("hierarchical-softmax", {}),
        ("pointer-networks", {}),
        ("sampled-softmax", {"num_samples": 3}),
    ],
)
def test_autocast_changes_little(name, options):
    head, x, target = make(name, options, dtype=torch.float32)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(head(x, target))
        losses[-1].backward()
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(*losses, rtol=0.05, atol=0.05)
