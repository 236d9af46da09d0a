import cmath
import math

import pytest
import torch
from head_cases import make

import manymax as mm
from manymax.heads.fourier import autocorrelation


def by_hand(coefficients, classes):
    """The density at the bins' middles and sum k^2 |c_k|^2, from the definitions, with Python's complex numbers."""
    half = len(coefficients) // 2
    a = [complex(re, im) for re, im in zip(coefficients[:half], coefficients[half:], strict=True)]
    c = [sum(a[j] * a[j + k].conjugate() for j in range(half - k)) for k in range(half)]
    middles = [-1 + (1 + 2 * j) / classes for j in range(classes)]
    density = [
        0.5 + sum((c[k] / c[0].real * cmath.exp(1j * k * math.pi * b)).real for k in range(1, half)) for b in middles
    ]
    return [p / sum(density) for p in density], sum(k**2 * abs(c[k]) ** 2 for k in range(half))


@pytest.mark.parametrize("frequencies", [0, 1, 4, 6])
def test_probabilities_and_losses_are_those_of_the_definitions(frequencies):
    options = {"frequencies": frequencies, "gamma": 0.01, "eps": 0.001}
    head, x, target = make("fourier-head", options, shape=(8,), reduction="none")
    coefficients = x @ head.coefficients.T + head.bias
    assert coefficients.shape == (8, 2 * (frequencies + 1))
    for row, y, logs, loss in zip(coefficients.tolist(), target.tolist(), head.logits(x), head(x, target), strict=True):
        weights, rough = by_hand(row, 7)
        assert (logs.exp() - 0.001).tolist() == pytest.approx(weights)
        assert float(loss.detach()) == pytest.approx(-math.log(weights[y] + 0.001) + 0.01 * 2 * math.pi**2 / 7 * rough)


def test_autocorrelation():
    scores = torch.randn(3, 10, dtype=torch.float64)
    a = torch.complex(*scores.chunk(2, 1))
    expected = torch.stack([(a[:, : 5 - k] * a[:, k:].conj()).sum(1) for k in range(5)], 1)
    torch.testing.assert_close(autocorrelation(scores), expected)


def test_a_density_is_never_negative_and_sums_to_1_in_float32():
    torch.manual_seed(0)
    head = mm.create_head("fourier-head", in_features=8, num_classes=200, frequencies=60)
    y = head.probability(torch.randn(50, 8) @ head.coefficients.T)
    assert (y >= 0).all()
    torch.testing.assert_close(y.sum(1), torch.ones(50))


def test_no_coefficients_are_an_even_density_with_finite_gradients():
    head = mm.create_head("fourier-head", in_features=3, num_classes=5)
    x = torch.zeros(2, 3, requires_grad=True)
    loss = head(x, torch.tensor([0, 4]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(5))
    assert torch.isfinite(head.coefficients.grad).all()
    assert head.logits(x[0]).exp().tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frequencies": 5}, r"frequencies: expected a number in \[0, 4\], got 5"),
        ({"gamma": -1.0}, "gamma: expected at least 0"),
        ({"eps": -1.0}, "eps: expected at least 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("fourier-head", in_features=3, num_classes=5, **options)
