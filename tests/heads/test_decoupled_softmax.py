import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.decoupled_softmax import decoupled_softmax_loss, infonce_loss
from manymax.heads.soft_topk import soft_topk


def case(count=5, labels=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, labels, generator=generator, dtype=torch.float64)
    target = (torch.rand(count, labels, generator=generator) < 0.4).double()
    target[0] = 0
    target[1] = 1
    return scores.requires_grad_(), target


def by_hand(scores, target, form, weights):
    losses = []
    for row, wanted in zip(scores.tolist(), target.tolist(), strict=True):
        positives = [j for j, t in enumerate(wanted) if t > 0]
        terms = []
        for j in positives:
            others = range(len(row)) if form == "infonce" else [i for i in range(len(row)) if i not in positives]
            total = sum(math.exp(row[i]) for i in others) + (0 if form == "infonce" else math.exp(row[j]))
            terms.append(-math.log(math.exp(row[j]) / total) * (wanted[j] if weights else 1))
        losses.append(sum(terms) / (1 if form == "infonce" else max(1, len(positives))))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("form", "loss"), [("decoupled", decoupled_softmax_loss), ("infonce", infonce_loss)])
def test_the_formula(form, loss, weighted):
    scores, target = case()
    target = target * torch.rand_like(target)
    found = loss(scores, target, weighted=weighted)
    torch.testing.assert_close(found, by_hand(scores, target, form, weighted))
    assert torch.autograd.gradcheck(lambda s: loss(s, target, weighted=weighted), scores)


def test_one_positive_is_cross_entropy_and_no_negatives_are_no_loss():
    scores, _ = case()
    y = torch.tensor([0, 6, 2, 2, 1])
    sharp = F.one_hot(y, 7).double()
    torch.testing.assert_close(decoupled_softmax_loss(scores, sharp), F.cross_entropy(scores, y, reduction="none"))
    loss = decoupled_softmax_loss(scores, torch.ones(5, 7))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert (loss == 0).all()
    assert (gradient == 0).all()


def test_positives_do_not_compete():
    scores = torch.randn(1, 4, dtype=torch.float64)
    target = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    raised = scores.clone()
    raised[0, 0] += 5  # makes the second positive's share of a softmax smaller, and the decoupled one's not
    second = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    without = torch.tensor([1, 2, 3])
    for s in (scores, raised):
        both = 2 * decoupled_softmax_loss(s, target)
        first = decoupled_softmax_loss(s[:, [0, 2, 3]], second[:, 1:])
        torch.testing.assert_close(both - first, decoupled_softmax_loss(s[:, without], second[:, 1:]))
    assert infonce_loss(raised, second) > infonce_loss(scores, second)


@pytest.mark.parametrize("form", ["decoupled", "infonce", "bce"])
def test_the_head_scores_cosines_over_the_temperature(form):
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    head = mm.create_head("decoupled-softmax", in_features=5, num_classes=7, temperature=0.3, form=form).double()
    target = (torch.rand(2, 3, 7) < 0.5).double()
    scores = F.normalize(x, dim=-1) @ F.normalize(head.weight, dim=-1).T / 0.3
    if form == "bce":
        expected = F.binary_cross_entropy_with_logits(scores, target)
    else:
        expected = by_hand(scores.flatten(0, 1), target.flatten(0, 1), form, False).mean()
    torch.testing.assert_close(head(x, target), expected)
    torch.testing.assert_close(head(x, 7 * target, candidates=head.weight), expected)
    y = torch.randint(7, (2, 3))
    torch.testing.assert_close(head(x, y), head(x, F.one_hot(y, 7).double()))


@pytest.mark.parametrize("alpha", [0.7, 2.0, 30.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_soft_topk_sums_to_k(alpha, scale):
    x = scale * torch.randn(6, 50, dtype=torch.float64)
    k = torch.tensor([1, 2, 5, 10, 30, 49])
    torch.testing.assert_close(soft_topk(x, k, alpha=alpha).sum(-1), k.double(), atol=1e-9, rtol=0)
    p = soft_topk(x.float(), 7, alpha=alpha)
    torch.testing.assert_close(p.sum(-1), torch.full((6,), 7.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(soft_topk(x, 7, alpha=alpha, log=True).exp(), soft_topk(x, 7, alpha=alpha))


def test_soft_topk_of_many_scores():
    x = torch.randn(2, 300_000)
    torch.testing.assert_close(soft_topk(x, 1).sum(-1), torch.ones(2), atol=1e-4, rtol=0)


def test_soft_topk_nears_topk_and_softmax_of_nothing():
    x = torch.tensor([0.3, 2.0, -1.0, 0.9], dtype=torch.float64)
    torch.testing.assert_close(soft_topk(x, 2, alpha=500.0), torch.tensor([0, 1, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(soft_topk(x, 3, alpha=1e-9), torch.full((4,), 0.75, dtype=torch.float64))
    assert (soft_topk(x, 4) == 1).all()


@pytest.mark.parametrize("log", [False, True])
def test_the_gradient_of_soft_topk_is_that_of_finite_differences(log):
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    k = torch.tensor([1, 3, 5])
    assert torch.autograd.gradcheck(lambda x: soft_topk(x, k, alpha=1.7, log=log), x)
    every = soft_topk(x, 6, log=log)
    assert (torch.autograd.grad(every.sum(), x)[0] == 0).all()


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_soft_topk_head(k, weighted):
    x = torch.randn(4, 5, dtype=torch.float64)
    options = {"temperature": 0.4, "alpha": 1.5, "k": k, "weighted": weighted, "reduction": "none"}
    head = mm.create_head("soft-topk", in_features=5, num_classes=7, **options).double()
    target = torch.tensor([[1, 0, 0, 1, 0, 0, 0], [0] * 7, [1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]).double()
    target = target * torch.rand(4, 7)
    scores = F.normalize(x, dim=-1) @ F.normalize(head.weight, dim=-1).T / 0.4
    for i in range(4):
        positives = target[i].nonzero()[:, 0].tolist()
        p = soft_topk(scores[i].detach(), k or max(1, len(positives)), alpha=1.5)
        terms = [-math.log(p[j]) * (float(target[i, j]) if weighted else 1) for j in positives]
        assert math.isclose(head(x, target)[i].item(), sum(terms) / max(1, len(positives)), abs_tol=1e-12)
    y = torch.tensor([3, 0, 1, 6])
    sharp = F.one_hot(y, 7).double()
    torch.testing.assert_close(head(x, y), head(x, sharp))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("decoupled-softmax", {"temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ("decoupled-softmax", {"form": "mean"}, "form: expected 'decoupled', 'infonce' or 'bce', got 'mean'"),
        ("decoupled-softmax", {"form": "bce", "weighted": True}, "weighted: expected False where form is 'bce'"),
        ("soft-topk", {"temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ("soft-topk", {"k": 0}, "k: expected at least 1 or None, got 0"),
        ("soft-topk", {"alpha": 0.0}, "alpha: expected a number above 0, got 0.0"),
        ("soft-topk", {"iterations": 0}, "iterations: expected at least 1, got 0"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head(name, in_features=4, num_classes=3, **options)


@pytest.mark.parametrize(
    ("k", "options", "words"),
    [
        (0, {}, "k: expected numbers above 0, got 0.0"),
        (1, {"alpha": -1.0}, "alpha: expected a number above 0, got -1.0"),
        (1, {"iterations": 0}, "iterations: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_of_soft_topk(k, options, words):
    with pytest.raises(ValueError, match=words):
        soft_topk(torch.zeros(3), k, **options)
