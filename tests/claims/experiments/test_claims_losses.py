"""What the experiments about losses measure with."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from scipy.stats import rankdata

from manymax.claims.experiments import comp_sum_losses, fourier_head, ldr_losses, noisy_labels, tables

SCORES = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 0, 1])


def test_losses_for_wrong_labels_by_hand():
    p = SCORES.softmax(1)
    found = {name: loss(SCORES, TARGET) for name, loss in noisy_labels.all_losses(0.1).items()}
    for i, y in enumerate(TARGET.tolist()):
        own, others = float(p[i, y]), [float(p[i, j]) for j in range(4) if j != y]
        reverse = 4 * (1 - own)
        leads = [1 + float(SCORES[i, j] - SCORES[i, y]) for j in range(4) if j != y]
        expected = {
            "ce": -math.log(own),
            "mae": 1 - own,
            "gce": (1 - own**0.7) / 0.7,
            "sce": -0.1 * math.log(own) + reverse,
            "rll": math.log(1.01 / (own + 0.01)) + sum(math.log((q + 0.01) / 0.01) for q in others) / 3,
            "nce_rce": math.log(own) / float(p[i].log().sum()) + reverse,
            "cs": max(0.0, *leads),
            "ww": sum(max(0.0, lead) for lead in leads),
        }
        assert {name: float(found[name][i]) for name in expected} == pytest.approx(expected)
    scaled = SCORES / SCORES.abs().mean(1, keepdim=True)
    soft = F.softplus(SCORES) / F.softplus(SCORES).mean(1, keepdim=True)
    margins = soft - soft.gather(1, TARGET[:, None]) + 0.1 * (1 - F.one_hot(TARGET, 4))
    torch.testing.assert_close(found["ldr"], margins.exp().mean(1).log())
    torch.testing.assert_close(found["aldr"], noisy_labels.aldr_kl(scaled, TARGET, margin=0.1))


def test_networks_learn_as_if_alone():
    table = tables.gaussians(classes=3, features=4, count=50)
    labels = torch.stack([table.train[1], (table.train[1] + 1) % 3], 1)
    losses = noisy_labels.all_losses(0.1)
    torch.manual_seed(0)
    both = noisy_labels.Networks(2, 4, 5, 3, losses["ce"])
    both(table.train[0], labels).backward()
    for i in range(2):
        torch.manual_seed(0)
        alone = noisy_labels.Networks(1, 4, 5, 3, losses["ce"])
        alone(table.train[0], labels[:, i : i + 1]).backward()
        torch.testing.assert_close(both.first.grad[i], alone.first.grad[0])


def test_ranks_share_ties():
    accuracies = torch.tensor([[0.9, 0.5], [0.8, 0.5], [0.9, 0.7]])
    expected = torch.from_numpy(rankdata(-accuracies.numpy(), axis=0))
    torch.testing.assert_close(ldr_losses.ranks(accuracies).double(), expected)


def test_noise_changes_the_share_said():
    labels = torch.arange(20_000) % 5
    generator = torch.Generator().manual_seed(0)
    drawn = tables.uniform_noise(labels, 0.5, 5, generator)
    assert float((drawn != labels).float().mean()) == pytest.approx(0.4, abs=0.02)
    moved = tables.class_noise(labels, 0.3, 5, generator)
    assert float((moved != labels).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert set(((moved - labels) % 5).tolist()) == {0, 1}


def test_tables():
    table = tables.loaded("wine")
    assert len(table.train[1]) + len(table.validation[1]) == 178
    torch.testing.assert_close(table.train[0].mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    assert tables.gaussians(classes=3, features=2, count=50).classes == 3
    assert tables.digits(flat=False).train[0].shape == (1438, 1, 8, 8)


def test_violations_are_seen(monkeypatch):
    assert comp_sum_losses.violations(0, 3) == 0
    monkeypatch.setattr(comp_sum_losses, "h_consistency", lambda *args: comp_sum_losses_excess())
    assert comp_sum_losses.violations(0, 3) == 3 * len(comp_sum_losses.TAUS)


def comp_sum_losses_excess():
    from manymax.heads.consistency import Consistency

    return Consistency(zero_one=0.5, surrogate=0.1, bound=0.4)


def test_roughness_is_the_authors():
    weights = torch.rand(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = sum(
        6
        / (math.pi * sigma) ** 2
        * sum(
            float((row - torch.from_numpy(gaussian_filter1d(row.numpy(), sigma, mode="wrap", radius=19))).norm())
            for row in weights
        )
        / 3
        for sigma in range(1, 101)
    )
    assert fourier_head.roughness(weights) == pytest.approx(expected)


@pytest.mark.parametrize("name", list(fourier_head.DENSITIES))
def test_bins_are_drawn_from_their_density(name):
    x = torch.tensor([[0.3, -0.5], [-0.4, 0.2]])
    p = fourier_head.probabilities(name, x, 50)
    torch.testing.assert_close(p.sum(1), torch.ones(2, dtype=torch.float64))
    middles = -1 + (1 + 2 * torch.arange(50)) / 50
    means = (p * middles).sum(1)
    expected = {"normal": [-0.5, 0.2], "mixture": [-0.1, -0.1], "beta": [2 * 31 / 82 - 1, 1 - 2 * 41 / 62]}[name]
    assert means.tolist() == pytest.approx(expected, abs=0.01)
    table = fourier_head.drawn(name, 0, bins=50, count=30, tested=10)
    assert table.train[0].shape == (30, 2)
    assert table.validation[1].shape == (10,)
    assert fourier_head.divergence(p, p) == 0
    assert fourier_head.divergence(p, p.flip(0)) > 0
