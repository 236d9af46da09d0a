import numpy as np
import pytest
import torch

import manymax as mm


def draw(classes=4, dim=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = [3, 5, 2, 6][:classes]
    labels = torch.arange(classes).repeat_interleave(torch.tensor(counts))
    features = (
        torch.randn(len(labels), dim, generator=generator) + 2 * torch.randn(classes, dim, generator=generator)[labels]
    )
    return features, labels, torch.randn(classes, dim, generator=generator), torch.randn(classes, generator=generator)


@pytest.mark.parametrize("frame", ["simplex", "orthogonal"])
def test_the_four_numbers_by_hand(frame):
    features, labels, weight, bias = draw()
    h, y, w = features.double().numpy(), labels.numpy(), weight.double().numpy()
    means = np.stack([h[y == k].mean(0) for k in range(4)])
    centre = means.mean(0)
    within = sum(np.outer(x - means[k], x - means[k]) for x, k in zip(h, y, strict=True)) / len(h)
    between = sum(np.outer(m - centre, m - centre) for m in means) / 4
    m = (means - centre if frame == "simplex" else means).T
    ideal = (np.eye(4) - 1 / 4) / np.sqrt(3) if frame == "simplex" else np.eye(4) / 2
    gram = m.T @ m
    found = mm.diagnose.neural_collapse(features, labels, weight, bias, frame=frame)
    assert found.nc1 == pytest.approx(np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 4)
    assert found.nc2 == pytest.approx(np.linalg.norm(gram / np.linalg.norm(gram) - ideal))
    assert found.nc3 == pytest.approx(np.linalg.norm(w / np.linalg.norm(w) - m.T / np.linalg.norm(m)))
    wrong = 0
    for x in h:
        score = w @ x + bias.double().numpy()
        wrong += score.argmax() != ((x - means) ** 2).sum(1).argmin()
    assert found.nc4 == pytest.approx(wrong / len(h))
    assert 0 < found.nc4 < 1


def test_a_collapsed_classifier_has_zeros():
    frame = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64))[0].T
    simplex = frame - frame.mean(0)
    labels = torch.arange(4).repeat(3)
    zeros = mm.diagnose.neural_collapse(3 * simplex[labels] + 5, labels, 0.1 * simplex)
    assert zeros.nc1 == pytest.approx(0, abs=1e-12)
    assert zeros.nc2 == pytest.approx(0, abs=1e-12)
    assert zeros.nc3 == pytest.approx(0, abs=1e-12)
    orthogonal = mm.diagnose.neural_collapse(frame[labels], labels, 2 * frame, frame="orthogonal")
    assert max(orthogonal) == pytest.approx(0, abs=1e-12)
    assert mm.diagnose.neural_collapse(frame[labels], labels, 2 * frame).nc3 > 0.1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frame": "cube"}, TypeError, "frame: expected 'simplex' or 'orthogonal', got 'cube'"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, "labels: expected one for each"),
        ({"labels": torch.zeros(16, dtype=torch.int64)}, ValueError, "got none of class 1"),
        ({"labels": torch.full((16,), 4)}, ValueError, "labels: expected whole numbers below 4"),
        ({"weight": torch.zeros(4, 3)}, ValueError, r"weight: expected \(2 classes or more, 7\), got \(4, 3\)"),
        ({"bias": torch.zeros(3)}, ValueError, r"bias: expected \(4,\), got \(3,\)"),
    ],
)
def test_refusals(change, error, message):
    features, labels, weight, bias = draw()
    with pytest.raises(error, match=message):
        mm.diagnose.neural_collapse(
            **({"features": features, "labels": labels, "weight": weight, "bias": bias} | change)
        )
