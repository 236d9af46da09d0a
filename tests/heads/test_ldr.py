import math

import pytest
import torch
import torch.nn.functional as F
from head_cases import make
from scipy.optimize import minimize

import manymax as mm
from manymax.heads.ldr import aldr_kl, best_lambda, label_margins, ldr_kl, next_lambda


def batch(n=12, classes=5, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return scores, torch.randint(classes, (n,), generator=generator)


def test_the_limits():
    scores, target = batch()
    hinge = label_margins(scores, target, 0.7).amax(1)
    torch.testing.assert_close(ldr_kl(scores, target, lam=1e-4, margin=0.7), hinge, rtol=0, atol=1e-3)
    expected = F.cross_entropy(scores, target, reduction="none") - math.log(5)
    torch.testing.assert_close(ldr_kl(scores, target, lam=1.0), expected)
    over_labels = sum(ldr_kl(scores, torch.full_like(target, y), lam=1e6) for y in range(5))
    torch.testing.assert_close(over_labels, torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-3)


def test_it_is_the_worst_distribution_at_its_price():
    """The maximum over p on the simplex, found by scipy over p = softmax(q)."""
    scores, target = batch(n=3, classes=4)
    for row, loss in zip(label_margins(scores, target, 0.5), ldr_kl(scores, target, lam=0.8, margin=0.5), strict=True):

        def cost(q, row=row):
            p = torch.tensor(q).softmax(0)
            return float(-(p @ row) + 0.8 * (p * (4 * p).log()).sum())

        assert -minimize(cost, [0.0] * 4).fun == pytest.approx(float(loss), abs=1e-6)


@pytest.mark.parametrize(("lam0", "alpha"), [(1.0, None), (2.0, 0.4), (1.0, 3.0), (0.5, 0.05)])
@pytest.mark.parametrize("scale", [0.1, 2.0, 20.0])
def test_the_adaptive_loss_is_the_largest_over_lambda(lam0, alpha, scale):
    scores, target = batch(n=40, classes=50, scale=scale)
    price = 2 * math.log(50) / lam0 if alpha is None else alpha
    found = aldr_kl(scores, target, lam0=lam0, alpha=alpha, margin=0.3)
    grid = [
        ldr_kl(scores, target, lam=lam, margin=0.3) - price / 2 * (lam - lam0) ** 2
        for lam in torch.linspace(1e-6 * lam0, lam0, 401).tolist()
    ]
    best = torch.stack(grid).amax(0)
    assert (found >= best - 1e-9).all()
    torch.testing.assert_close(found, best, rtol=0, atol=1e-2 * lam0)


def test_lambda_is_stationary_and_small_where_the_scores_contradict_nothing():
    scores, target = batch(n=30)
    margins = label_margins(scores, target, 0.3)
    lam = best_lambda(margins, 1.0, 4.0)
    p = (margins / lam[:, None]).softmax(1)
    torch.testing.assert_close(lam, (1 - (p * (5 * p).log()).sum(1) / 4.0).clamp_min(0), rtol=1e-6, atol=1e-6)
    sure, unsure = torch.tensor([[9.0, 0, 0]]), torch.zeros(1, 3)
    lams = [float(best_lambda(label_margins(f, torch.tensor([0]), 0.0), 1.0, 2.0)) for f in (sure, unsure)]
    assert lams[0] < lams[1] == 1


def test_stored_lambdas_take_a_step_a_call():
    options = {"examples": 6, "alpha": 4.0, "lam": 1.5, "margin": 0.2}
    head, x, target = make("ldr-losses", options, shape=(4,), reduction="none", chunk_size=3)
    target[1] = -100
    index = torch.tensor([5, 0, 2, 3])
    head.lambdas[:] = torch.linspace(0.5, 1.5, 6)
    before, scores = head.lambdas.clone(), head.logits(x).detach()
    loss = head(x, target, index=index)
    expected = before.clone()
    for i, row in zip(index.tolist(), scores, strict=True):
        p = (row / before[i]).softmax(0)
        expected[i] = before[i] if i == 0 else 1.5 - (p * (7 * p).log()).sum() / 4.0
    torch.testing.assert_close(head.lambdas, expected)
    lam = expected[index]
    margins = label_margins(scores, target.clamp_min(0), 0.2)
    wanted = lam * ((margins / lam[:, None]).exp().mean(1)).log() - 2.0 * (lam - 1.5) ** 2
    torch.testing.assert_close(loss, torch.where(target == -100, 0, wanted))
    head.reduction = "mean"
    head(x, target, index=index).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    assert next_lambda(torch.tensor([[50.0, 0]]), torch.ones(1), lam0=1.0, alpha=0.1) > 0
    with pytest.raises(ValueError, match=r"index: expected numbers in \[0, 6\), one a target"):
        head(x, target, index=index + 1)


@pytest.mark.parametrize(("normalize", "grow"), [("l1", lambda f: f), ("softplus", F.softplus)])
def test_normalised_scores(normalize, grow):
    head, x, target = make("ldr-losses", {"adaptive": False, "normalize": normalize, "margin": 0.1}, shape=(5,))
    f = grow(head.logits(x))
    f = f / f.abs().sum(1, keepdim=True) * 7
    torch.testing.assert_close(head(x, target), ldr_kl(f, target, margin=0.1).mean())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lam": 0.0}, "lam: expected a number above 0"),
        ({"alpha": 0.0}, "alpha: expected a number above 0 or None"),
        ({"normalize": "l2"}, "normalize: expected None, 'l1' or 'softplus'"),
        ({"examples": -1}, "examples: expected at least 0"),
        ({"examples": 3, "adaptive": False}, "examples: expected at least 0, and 0 where not adaptive"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("ldr-losses", in_features=2, num_classes=3, **options)
