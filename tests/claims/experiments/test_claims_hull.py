import pytest
import torch
from scipy.optimize import nnls

from manymax.claims.experiments.hull import nearest_in_hull, outside_hull

TRIANGLE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("point", "gap"),
    [
        ((0.2, 0.2), 0.0),
        ((0.5, 0.5), 0.0),  # on an edge
        ((0.0, 1.0), 0.0),  # a corner
        ((1.0, 1.0), 2**-0.5),  # the edge x + y = 1 is nearest
        ((-1.0, 0.5), 1.0),
        ((3.0, 0.0), 2.0),  # a corner is nearest
        ((0.5, -1e-3), 1e-3),
    ],
)
def test_a_triangle(point, gap):
    found = outside_hull(torch.tensor([point], dtype=torch.float64), TRIANGLE, steps=400)
    assert float(found) == pytest.approx(gap, abs=1e-6)


def test_a_hull_of_one_point_and_of_a_segment():
    one = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    assert outside_hull(one, one).tolist() == [0.0]
    assert float(outside_hull(one + torch.tensor([3.0, 4.0]), one)) == pytest.approx(5.0)
    segment = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(outside_hull(torch.tensor([[1.0, 0.3, 0.4]]).double(), segment)) == pytest.approx(0.5, rel=1e-6)


def test_means_of_corners_are_never_outside():
    corners = torch.randn(2, 3, 20, 4, dtype=torch.float64)
    weights = torch.softmax(4 * torch.randn(2, 3, 50, 20, dtype=torch.float64), -1)
    for steps in (1, 5, 100):
        assert outside_hull(weights @ corners, corners, steps).count_nonzero() == 0


def test_the_gap_is_never_larger_than_the_distance_and_reaches_it():
    corners = torch.randn(12, 3, dtype=torch.float64)
    points = 3 * torch.randn(40, 3, dtype=torch.float64)
    distance = torch.tensor([exact_distance(point, corners) for point in points], dtype=torch.float64)
    for steps in (1, 10, 2000):
        assert (outside_hull(points, corners, steps) <= distance + 1e-6).all()
    assert torch.allclose(outside_hull(points, corners, 2000), distance, atol=1e-5)
    assert (distance > 1e-3).sum() > 20


def exact_distance(point, corners):
    """Return the distance by non-negative least squares, the weights' sum held at 1 by a heavy equation."""
    heavy = 1e4
    rows = torch.cat([corners.T, heavy * torch.ones(1, len(corners))]).numpy()
    weights, _ = nnls(rows, torch.cat([point, torch.tensor([heavy])]).numpy())
    return float((point - torch.as_tensor(weights) @ corners).norm())


def test_what_is_nearest_is_a_mean_of_the_corners():
    corners = torch.randn(2, 9, 3)
    nearest = nearest_in_hull(torch.randn(2, 5, 3), corners, steps=30)
    assert nearest.shape == (2, 5, 3)
    assert outside_hull(nearest.double(), corners.double()).max() < 1e-6


def test_rounding_is_not_a_gap():
    corners = 1e3 * torch.randn(6, 2, dtype=torch.float64)
    almost = corners[:1] * (1 + 1e-12)
    assert outside_hull(almost, corners).tolist() == [0.0]
