import pytest
import torch

from manymax.claims.experiments.cases import Cases
from manymax.claims.experiments.shapes import KINDS, clouds
from manymax.claims.experiments.sinkformers import Shapes

FAR = 2 * 1.5 * 3**0.5  # no surface reaches beyond the corners of a stretched cube


def test_cases_are_those_of_the_paper():
    tokens, places = Cases(length=12, tested=500).held_out()
    seen = set()
    for row, place in zip(tokens.tolist(), places.tolist(), strict=True):
        if 64 in row:
            case, expected = "least", row.index(min(row))
        elif 50 in row:
            case, expected = "first", 0
        else:
            case, expected = "largest", row.index(max(row))
        assert place == expected
        seen.add(case)
    assert seen == {"least", "first", "largest"}
    assert tokens.min() >= 0
    assert tokens.max() == 99


def test_ties_go_to_the_left():
    task = Cases(length=30, tested=300)
    tokens, places = task.draw("train", 300, torch.Generator().manual_seed(0))
    tied = [
        (row.tolist(), int(place)) for row, place in zip(tokens, places, strict=True) if (row == row.max()).sum() > 1
    ]
    plain = [(row, place) for row, place in tied if 64 not in row and 50 not in row]
    assert len(plain) > 5
    assert all(place == row.index(max(row)) for row, place in plain)


@pytest.mark.parametrize("task", [Cases(8, 20), Shapes(6, 0.1, 20)])
def test_batches_depend_on_seed_and_step_and_tests_on_neither(task):
    def inputs(step, seed):
        return task.batch("train", step, 5, seed=seed)[0]

    assert inputs(0, 0).equal(inputs(0, 0))
    assert not inputs(0, 0).equal(inputs(1, 0))
    assert not inputs(0, 0).equal(inputs(0, 1))
    assert task.held_out()[0].equal(task.held_out()[0])
    assert len(task.held_out()[0]) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_surfaces(kind):
    x, y, z = kind((400,), torch.Generator().manual_seed(0)).double().unbind(-1)
    r = (x**2 + y**2).sqrt()
    largest = torch.stack([x, y, z]).abs().amax(0)
    corners = torch.stack([-x - y - z, -x + y + z, x - y + z, x + y - z])  # how far towards each face
    zero = {
        "_sphere": r**2 + z**2 - 1,
        "_cube": largest - 1,
        "_cylinder": r - 1,
        "_cone": r - (1 - z) / 2,
        "_double_cone": r - z.abs(),
        "_torus": ((r - 1) ** 2 + z**2).sqrt() - 0.4,
        "_tetrahedron": corners.amax(0) - 1,
        "_helix": torch.stack([x - (2 * torch.pi * z).cos(), y - (2 * torch.pi * z).sin()]),
    }[kind.__name__]
    assert zero.abs().max() < 1e-5
    if "cone" in kind.__name__:  # where the circle is wider there are more points
        assert float(r.mean()) == pytest.approx(2 / 3, abs=0.05)
    assert (z.max() - z.min()) > 0.7  # and points are all over it
    assert x.min() < 0 < x.max()


def test_clouds_are_stretched_turned_and_blurred():
    generator = torch.Generator().manual_seed(1)
    points, labels = clouds(400, 50, 0.0, generator)
    assert points.shape == (400, 50, 3)
    assert sorted(set(labels.tolist())) == list(range(len(KINDS)))
    assert points.norm(dim=-1).max() < FAR
    spheres = points[labels == 0]
    radii = spheres.norm(dim=-1)
    assert radii.min() > 1 / 1.5 - 1e-4
    assert radii.max() < 1.5 + 1e-4
    assert radii.std() > 0.1
    cylinders = points[labels == 2]
    assert cylinders.std((0, 1)).max() / cylinders.std((0, 1)).min() < 1.3  # no axis is preferred
    blurred, _ = clouds(400, 50, 0.3, torch.Generator().manual_seed(1))
    difference = blurred - points
    assert float(difference.std()) == pytest.approx(0.3, rel=0.02)
