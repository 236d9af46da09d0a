"""Darcy flow: its solver against known solutions and another library's, and what is made of it."""

import math

import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from manymax.claims.experiments import galerkin_transformer
from manymax.claims.experiments.darcy import Darcy, fields, harmonic_means, solve
from manymax.data.task import stream
from manymax.models.operators import relative_loss


def square(points):
    x = torch.linspace(0, 1, points, dtype=torch.float64)
    return torch.meshgrid(x, x, indexing="ij")


def smooth(points):
    """A coefficient, the source that makes u the pressure, and u: all smooth, and none symmetric."""
    x, y = square(points)
    a, a_x, a_y = 1 + x + x * y**2, 1 + y**2, 2 * x * y
    u = (math.pi * x).sin() * (2 * math.pi * y).sin()
    u_x = math.pi * (math.pi * x).cos() * (2 * math.pi * y).sin()
    u_y = 2 * math.pi * (math.pi * x).sin() * (2 * math.pi * y).cos()
    return a, 5 * math.pi**2 * a * u - a_x * u_x - a_y * u_y, u


def two_media(points):
    """Two media that meet halfway between two points, where u has a kink and a u' none."""
    x, y = square(points)
    a = torch.where(x < 0.5, 3.0, 12.0).double()
    wave = (2 * math.pi * x).sin() * (math.pi * y).sin()
    return a, 5 * math.pi**2 * wave, wave / a


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("problem", [smooth, two_media])
def test_twice_as_fine_is_four_times_as_exact(problem, turned):
    errors, sizes = [], (11, 23, 47)
    for points in (12, 24, 48):
        a, f, u = (x.mT[None] if turned else x[None] for x in problem(points))
        errors.append(float((solve(a, f) - u).abs().max()))
    orders = [math.log2(errors[i] / errors[i + 1]) / math.log2(sizes[i + 1] / sizes[i]) for i in (0, 1)]
    assert errors[-1] < 0.01
    assert orders == pytest.approx([2.0, 2.0], abs=0.15)


def test_pressures_are_those_of_a_sparse_solver():
    generator = torch.Generator().manual_seed(3)
    points = 9
    a = 0.5 + torch.rand(2, points, points, generator=generator, dtype=torch.float64) * 10
    f = torch.randn(2, points, points, generator=generator, dtype=torch.float64)
    for found, coefficient, source in zip(solve(a, f), a.tolist(), f.tolist(), strict=True):
        matrix, right = lil_matrix((points**2, points**2)), []
        for i in range(points):
            for j in range(points):
                place = i * points + j
                if 0 < i < points - 1 and 0 < j < points - 1:
                    for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                        through = 2 / (1 / coefficient[i][j] + 1 / coefficient[k][m]) * (points - 1) ** 2
                        matrix[place, place] += through
                        matrix[place, k * points + m] -= through
                    right.append(source[i][j])
                else:
                    matrix[place, place] = 1
                    right.append(0.0)
        expected = torch.from_numpy(spsolve(matrix.tocsr(), right)).reshape(points, points)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_harmonic_means_of_neighbours():
    x = torch.tensor([[[1.0, 2, 4], [3, 6, 12]]])
    torch.testing.assert_close(harmonic_means(x, 1), torch.tensor([[[1.5, 3, 6]]]))
    torch.testing.assert_close(harmonic_means(x, 2), torch.tensor([[[4 / 3, 8 / 3], [4, 8]]]))


def test_fields_are_sums_of_waves():
    found = fields(3, 5, torch.Generator().manual_seed(2))
    drawn = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    k = torch.arange(64, dtype=torch.float64)
    size = torch.where(k > 0, 2**0.5, 1.0).double()  # waves with slope 0 at the ends, orthonormal on the interval
    spread = 1 / (math.pi**2 * (k[:, None] ** 2 + k**2) + 9)
    spread[0, 0] = 0
    for i in range(5):
        for j in range(5):
            waves = [size * (math.pi * k * place / 4).cos() for place in (i, j)]
            torch.testing.assert_close(
                found[:, i, j], torch.einsum("bkl,kl,k,l->b", drawn, spread, *waves), rtol=1e-6, atol=1e-8
            )


def test_a_task_of_darcy_flow():
    task = Darcy(points=9, finer=3, count=70, tested=5)
    signs, pressures = task.examples("train")
    assert (signs.shape, pressures.shape, signs.dtype) == ((70, 9, 9), (70, 9, 9), torch.float32)
    fine = fields(70, 25, stream("darcy", "train"))
    torch.testing.assert_close(signs, fine[:, ::3, ::3].sign().float())
    exact = solve(torch.where(fine > 0, 12.0, 3.0).double(), torch.ones_like(fine))
    torch.testing.assert_close(pressures, (100 * exact[:, ::3, ::3]).float())
    assert not pressures[:, [0, -1]].any()
    assert 0.2 < float(pressures.mean()) < 1
    assert task.held_out()[0].shape == (5, 9, 9)
    assert not torch.equal(task.held_out()[0], signs[:5])


def test_what_lets_less_through_raises_the_pressure():
    ones = torch.ones(1, 17, 17, dtype=torch.float64)
    high, low = (solve(a * ones, ones) for a in (12.0, 3.0))
    mixed = solve(torch.where(fields(1, 17, torch.Generator().manual_seed(1)) > 0, 12.0, 3.0).double(), ones)
    assert float(high.mean()) < float(mixed.mean()) < float(low.mean())  # its mean falls with a, if not each value
    assert float(low.max()) == pytest.approx(0.0736713 / 3, rel=0.01)  # Timoshenko's series for a = 1, over 3


def test_errors_are_of_the_functions_held_out():
    numbers = {
        "model": {"dims": 2, "width": 4, "depth": 1, "modes": 2, "gamma": 3.0},
        "learning_rate": 3e-3, "warmup": 1, "steps": 2, "batch_size": 2,
    }  # fmt: skip
    task = Darcy(points=7, count=4, tested=3)
    models = [galerkin_transformer.learnt(task, kind, 5, numbers, lambda *_: None) for kind in ("galerkin", "softmax")]
    assert [model.blocks[0].mechanism.kind for model in models] == ["galerkin", "softmax"]
    signs, pressures = task.held_out()
    expected = relative_loss(models[0].functions(signs), pressures)
    assert galerkin_transformer.error(models[0], task) == pytest.approx(float(expected.detach()))
    again, other = (galerkin_transformer.learnt(task, "galerkin", s, numbers, lambda *_: None) for s in (5, 6))
    assert torch.equal(again.lift.weight, models[0].lift.weight)
    assert not torch.equal(other.lift.weight, models[0].lift.weight)
