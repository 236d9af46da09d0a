"""What models from functions to functions are made of."""

import math

import pytest
import torch

from manymax.models.operators import SpectralConvolution, perceptron, relative_loss


def by_loops(found, wanted, gamma):
    """The relative errors of functions on the unit square, a point at a time."""
    total = 0.0
    for u, w in zip(found.tolist(), wanted.tolist(), strict=True):
        height, width = len(u), len(u[0])
        missed = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(u, w, strict=True)]
        sums = []
        for x in (missed, w):
            square = sum(value**2 for row in x for value in row)
            slopes = 0.0
            for i in range(1, height - 1):
                for j in range(1, width - 1):
                    slopes += ((x[i + 1][j] - x[i - 1][j]) / (2 / (height - 1))) ** 2
                    slopes += ((x[i][j + 1] - x[i][j - 1]) / (2 / (width - 1))) ** 2
            sums.append((square, slopes))
        total += math.sqrt(sums[0][0] / sums[1][0]) + gamma * math.sqrt(sums[0][1] / sums[1][1])
    return total / len(found)


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_the_loss_on_a_square(gamma):
    found, wanted = torch.randn(2, 3, 5, 8, dtype=torch.float64).unbind()
    assert float(relative_loss(found, wanted, gamma=gamma)) == pytest.approx(by_loops(found, wanted, gamma))
    scaled = relative_loss(100 * found, 100 * wanted, gamma=gamma)
    torch.testing.assert_close(scaled, relative_loss(found, wanted, gamma=gamma))


def test_the_loss_on_an_interval_approaches_that_of_functions():
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)[None]
    wanted, missed = (2 * math.pi * x).sin(), 0.1 * (6 * math.pi * x).cos()
    assert float(relative_loss(wanted + missed, wanted)) == pytest.approx(0.1, rel=1e-3)
    found = float(relative_loss(wanted + missed, wanted, gamma=2.0))
    assert found == pytest.approx(0.1 + 2 * 0.3, rel=1e-3)  # the derivative is three times as large beside


def test_the_loss_of_what_is_right_is_zero_and_so_is_its_gradient():
    wanted = torch.randn(2, 6)
    found = wanted.clone().requires_grad_()
    loss = relative_loss(found, wanted, gamma=0.5)
    loss.backward()
    assert loss == 0
    assert not found.grad.any()


def test_wrong_losses():
    with pytest.raises(
        ValueError, match=r"found: expected the shape of wanted, \(2, 6\), with 2 or 3 dims, got \(2, 5\)"
    ):
        relative_loss(torch.zeros(2, 5), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="with 2 or 3 dims"):
        relative_loss(torch.zeros(5), torch.zeros(5))
    with pytest.raises(ValueError, match=r"gamma: expected at least 0, got -0\.1"):
        relative_loss(torch.ones(2, 5), torch.ones(2, 5), gamma=-0.1)


def sampled(height, width):
    """Features on a grid of the unit square, or of the unit interval with one row, made of few waves."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n for n in (height, width)), indexing="ij")
    waves = [(2 * math.pi * (a * y + b * x) + c).cos() for a, b, c in ((0, 1, 0.3), (2, 3, 1.0), (-1, 2, 2.0))]
    return torch.stack([waves[0] + 0.5, waves[1] - waves[0], waves[2]], -1)[None]


@torch.no_grad()
@pytest.mark.parametrize(("dims", "coarse", "fine"), [(1, (1, 11), (1, 33)), (2, (9, 8), (18, 24))])
def test_a_spectral_convolution_is_the_same_on_a_finer_grid(dims, coarse, fine):
    torch.manual_seed(0)
    layer = SpectralConvolution(dims, 3, 4).double()
    rows, columns = fine[0] // coarse[0], fine[1] // coarse[1]
    torch.testing.assert_close(sampled(*fine)[:, ::rows, ::columns], sampled(*coarse))
    found = layer(sampled(*fine))[:, ::rows, ::columns]
    torch.testing.assert_close(found, layer(sampled(*coarse)), rtol=0, atol=1e-10)
    assert float((found - torch.nn.functional.silu(layer.point(sampled(*coarse)))).abs().max()) > 0.1


def test_a_perceptron_has_one_hidden_layer():
    network = perceptron(3, 7, 2, torch.nn.Tanh())
    x = torch.randn(5, 3)
    expected = (x @ network[0].weight.T + network[0].bias).tanh() @ network[2].weight.T + network[2].bias
    torch.testing.assert_close(network(x), expected)
