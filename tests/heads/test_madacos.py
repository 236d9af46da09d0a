"""MadaCos: the numbers that follow the batch, and what they mean for its median example."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from head_cases import make

import manymax as mm

ALPHA = 0.3


def batch(head, n=9, seed=0, spread=0.2):
    """Return features near their targets' rows, so that scale and margin are above their least values."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(7, (n,), generator=generator)
    noise = torch.randn(n, 5, dtype=torch.float64, generator=generator)
    return F.normalize(head.weight.detach()[target], dim=-1) + spread * noise, target


def near(n=9, **options):
    head, _, _ = make("madacos", {"alpha": ALPHA, **options}, features=5)
    return head, *batch(head, n)


def by_hand(head, x, target, others):
    cosine = F.normalize(x, dim=-1) @ F.normalize(head.weight.detach(), dim=-1).T
    own = [float(row[y]) for row, y in zip(cosine, target, strict=True)]
    median = statistics.median_low(own)
    scale = max(32.0, math.log(9999999 * (1 - ALPHA) / ALPHA) / (1 - median))
    sums = [
        sum(math.exp(scale * float(c)) for j, c in enumerate(row) if j != y)
        for row, y in zip(cosine, target.tolist(), strict=True)
    ]
    b = {"example": sums[own.index(median)], "median": statistics.median_low(sums), "mean": statistics.fmean(sums)}
    margin = max(0.0, median - math.log(b[others] * ALPHA / (1 - ALPHA)) / scale)
    logits = scale * (cosine - margin * F.one_hot(target, 7).double())
    return scale, margin, F.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize("others", ["example", "median", "mean"])
@pytest.mark.parametrize("n", [9, 10])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_scale_margin_and_loss_are_the_papers(others, n, chunk_size):
    head, x, target = near(n=n, others=others, reduction="none", chunk_size=chunk_size)
    scale, margin, losses = by_hand(head, x, target, others)
    assert scale > 32
    assert margin > 0
    torch.testing.assert_close(head(x, target), losses)
    assert float(head.adaptive_scale) == pytest.approx(scale)
    assert float(head.adaptive_margin) == pytest.approx(margin)


def test_the_median_examples_target_has_probability_alpha():
    head, x, target = near(reduction="none")
    cosine = F.cosine_similarity(x, head.weight[target], -1)
    median = cosine.argsort()[4]
    assert (-head(x, target)).exp()[median].item() == pytest.approx(ALPHA)


def test_far_features_have_the_least_scale_and_no_margin():
    head, _, target = make("madacos", shape=(9,))
    loss = head(-head.weight[target].detach(), target)
    assert (float(head.adaptive_scale), float(head.adaptive_margin)) == (32.0, 0.0)
    torch.testing.assert_close(loss, head.nll(-head.weight[target].detach(), target).mean())


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_are_those_at_a_fixed_scale_and_margin(reduction):
    head, x, target = near(reduction=reduction)
    x.requires_grad_()
    head(x, target).sum().backward()
    scale, margin, _ = by_hand(head, x.detach(), target, "example")
    other = x.detach().clone().requires_grad_()
    rows = head.weight.detach().clone().requires_grad_()
    cosine = F.normalize(other, dim=-1) @ F.normalize(rows, dim=-1).T
    reduce = "sum" if reduction == "none" else "mean"
    F.cross_entropy(scale * (cosine - margin * F.one_hot(target, 7).double()), target, reduction=reduce).backward()
    torch.testing.assert_close((x.grad, head.weight.grad), (other.grad, rows.grad))


def test_a_backward_pass_after_another_batch_is_its_own():
    head, x, target = near(reduction="none")
    (expected,) = torch.autograd.grad(head(x, target).sum(), head.weight)
    loss = head(x, target).sum()
    head(*batch(head, seed=1, spread=0.03))
    torch.testing.assert_close(torch.autograd.grad(loss, head.weight)[0], expected)


def test_evaluation_keeps_the_scale_and_leaves_out_the_margin():
    head, x, target = near()
    head(x, target)
    scale = float(head.adaptive_scale)
    other, wanted = batch(head, seed=2, spread=0.03)
    head.eval()
    torch.testing.assert_close(head(other, wanted), head.nll(other, wanted).mean())
    assert float(head.adaptive_scale) == scale
    torch.testing.assert_close(
        head.logits(other), scale * F.normalize(other, dim=-1) @ F.normalize(head.weight, dim=-1).T
    )
    head.train()
    head(other, wanted)
    assert float(head.adaptive_scale) > scale


def test_features_on_their_rows_and_a_single_candidate_are_finite():
    head = mm.create_head("madacos", in_features=4, num_classes=3)
    torch.nn.init.eye_(head.weight)  # cosines of exactly 1
    assert head(torch.eye(4)[:3], torch.arange(3)).isfinite()
    assert head.adaptive_scale.isfinite()
    head.half()
    assert head(torch.eye(4)[:3].half(), torch.arange(3)).isfinite()
    assert head.logits(torch.eye(4)[:3].half()).isfinite().all()
    assert head(torch.randn(2, 4), torch.zeros(2, dtype=torch.int64), candidates=torch.randn(1, 4)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 0.0}, r"alpha: expected a number in \(0, 1\), got 0.0"),
        ({"alpha": 1.0}, r"alpha: expected a number in \(0, 1\), got 1.0"),
        ({"others": "all"}, "others: expected 'example', 'median' or 'mean', got 'all'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("madacos", in_features=4, num_classes=3, **options)
