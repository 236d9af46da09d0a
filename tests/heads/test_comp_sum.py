import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.comp_sum import comp_sum_loss


def batch(scale=2.0):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(20, 6, generator=generator, dtype=torch.float64), torch.arange(20) % 6


def by_hand(scores, target, tau):
    found = []
    for row, y in zip(scores.tolist(), target.tolist(), strict=True):
        u = sum(math.exp(z - row[y]) for k, z in enumerate(row) if k != y)
        found.append(math.log(1 + u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_the_formula(tau):
    torch.testing.assert_close(comp_sum_loss(*batch(), tau), by_hand(*batch(), tau))


def test_its_members():
    scores, target = batch()
    p = scores.softmax(-1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(comp_sum_loss(scores, target, 1.0), F.cross_entropy(scores, target, reduction="none"))
    torch.testing.assert_close(comp_sum_loss(scores, target, 1.7), (1 - p**0.7) / 0.7)  # generalised cross-entropy
    torch.testing.assert_close(comp_sum_loss(scores, target, 2.0), 1 - p)  # mean absolute error


def test_what_exponentials_cannot_hold_goes_on_as_a_line():
    z = torch.tensor([[0.0, 100.0], [0.0, 101.0]], requires_grad=True)
    loss = comp_sum_loss(z, torch.tensor([0, 0]), 0.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert float((loss[1] - loss[0]).detach()) == pytest.approx(math.exp(40), rel=1e-3)
    assert z.grad[:, 1].tolist() == pytest.approx([math.exp(40)] * 2, rel=1e-3)


def test_bad_tau():
    with pytest.raises(ValueError, match="tau: expected at least 0, got -1"):
        mm.create_head("comp-sum-losses", in_features=2, num_classes=3, tau=-1.0)
