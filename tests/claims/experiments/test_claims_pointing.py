"""Hulls, triangles and tours against scipy, and the networks that point."""

import itertools

import pytest
import torch
from scipy.spatial import ConvexHull, Delaunay, distance_matrix

from manymax.claims.experiments import geometry
from manymax.claims.experiments.geometry import Geometry, coverage
from manymax.claims.experiments.pointer_networks import refuses
from manymax.models.pointer_network import DictionaryNetwork, PointerNetwork


def points(count, sets=20, seed=0):
    return torch.rand(sets, count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [3, 5, 12])
def test_hulls_are_scipys(count):
    x = points(count)
    for one, places in zip(x, geometry.hull(x).tolist(), strict=True):
        corners = ConvexHull(one.double().numpy()).vertices.tolist()  # counter-clockwise in the plane
        lowest = corners.index(min(corners))
        expected = corners[lowest:] + corners[:lowest] + [count]
        assert places == expected + [-100] * (count + 1 - len(expected))


@pytest.mark.parametrize("count", [3, 5, 8])
def test_triangles_are_scipys(count):
    x = points(count)
    for one, places in zip(x, geometry.delaunay(x).tolist(), strict=True):
        end = places.index(count)
        assert set(places[end + 1 :]) <= {-100}
        found = [tuple(places[i : i + 3]) for i in range(0, end, 3)]
        assert {tuple(sorted(map(int, each))) for each in Delaunay(one.double().numpy()).simplices} == set(found)
        assert all(a < b < c for a, b, c in found)
        assert len(found) == len(set(found))


def test_tours_are_those_of_dynamic_programming():
    x = points(6)
    for one, places, found in zip(x, geometry.tour(x).tolist(), geometry.length(x, geometry.tour(x)), strict=True):
        away = distance_matrix(one.double().numpy(), one.double().numpy())
        best = {(frozenset([0]), 0): 0.0}
        for size in range(2, 7):
            for rest in itertools.combinations(range(1, 6), size - 1):
                seen = frozenset((0, *rest))
                for last in rest:
                    best[seen, last] = min(
                        best[seen - {last}, k] + away[k, last] for k in seen - {last} if (seen - {last}, k) in best
                    )
        shortest = min(best[frozenset(range(6)), k] + away[k, 0] for k in range(1, 6))
        assert float(found) == pytest.approx(shortest, rel=1e-5)
        assert places[0] == 0
        assert places[1] < places[-1]


def test_coverage_of_a_square():
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.4], [1.0, 1.0], [0.0, 1.0]])
    for places, expected in [
        ([0, 1, 3, 4, 5, 5], (1.0, True)),
        ([3, 4, 0, 1, 5, 5], (1.0, True)),
        ([4, 3, 1, 0, 5, 5], (1.0, False)),
        ([0, 1, 3, 5, 5, 5], (0.5, False)),
        ([0, 1, 2, 3, 4, 5], (0.75, False)),
        ([0, 3, 1, 4, 5, 5], (0.0, False)),
        ([0, 1, 5, 5, 5, 5], (0.0, False)),
        ([5, 0, 1, 3, 4, 5], (0.0, False)),
    ]:
        found = coverage(square, torch.tensor(places))
        assert found == (pytest.approx(expected[0]), expected[1]), places


def test_a_search_wide_enough_finds_the_likeliest_answer():
    torch.manual_seed(0)
    model, x = PointerNetwork(8, once=True).eval(), points(4, sets=8)
    with torch.no_grad():  # at the start all answers are about as likely, whatever the state
        for parameter in model.parameters():
            parameter.mul_(6)
    orders = [order + (4,) * (5 - len(order)) for k in range(5) for order in itertools.permutations(range(4), k)]
    for one, found in zip(x, model.search(x, 5, beams=80), strict=True):
        likeliest, best = None, -float("inf")
        for order in orders:
            target = torch.tensor([order])
            memory, state = model.read(one[None])
            scores = model.scores(model.answers(one[None], target, state), memory)[0]
            total, free = 0.0, torch.ones(5, dtype=torch.bool)
            for step, place in enumerate(order):
                total += float(scores[step].masked_fill(~free, -torch.inf).log_softmax(-1)[place].detach())
                free[place] = False
                if place == 4:
                    break
            likeliest, best = (order, total) if total > best else (likeliest, best)
        assert tuple(found.tolist()) == likeliest


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("words", [False, True])
def test_the_loss_is_that_of_the_places_one_after_the_other(once, words):
    torch.manual_seed(0)
    model = DictionaryNetwork(8, largest=4, once=once) if words else PointerNetwork(8, once=once)
    x = points(4, sets=2)
    places = geometry.hull(x)
    memory, state = model.read(x)
    last, logs, free = model.start.expand(2, 1, 2), [], torch.ones(2, 5, dtype=torch.bool)
    for step in range(places.shape[1]):
        out, state = model.decoder(last, state)
        index = places[:, step].clamp(0, 3)
        logs.append(model.scores(out, memory)[:, 0].masked_fill(~free, -torch.inf).log_softmax(-1))
        free = free.scatter(1, index[:, None], not once)
        last = x[torch.arange(2), index][:, None]
    expected = torch.nn.functional.nll_loss(torch.stack(logs, 1).flatten(0, 1), places.flatten())
    torch.testing.assert_close(model(x, places), expected)


def test_both_ways_let_the_last_point_bear_on_the_first():
    x = points(5, sets=2)
    other = x.clone()
    other[:, -1] = 0
    for both_ways in (False, True):
        torch.manual_seed(0)
        model = PointerNetwork(8, both_ways=both_ways)
        (memory, state), (changed, _) = model.read(x), model.read(other)
        assert torch.equal(memory[:, 0], changed[:, 0]) == (not both_ways)
        assert memory.shape == (2, 6, 8)
        assert state[0].shape == state[1].shape == (1, 2, 8)
        torch.testing.assert_close(state[0][0, :, :4], memory[:, -2, :4])
        if both_ways:
            torch.testing.assert_close(state[0][0, :, 4:], memory[:, 0, 4:])
    with pytest.raises(ValueError, match="width: expected an even number"):
        PointerNetwork(7, both_ways=True)


def test_what_may_be_answered():
    torch.manual_seed(0)
    model, x = PointerNetwork(8, once=True).eval(), points(6, sets=9)
    tours = model.search(x, 6, beams=2, ends=False)
    assert torch.equal(tours.sort(1).values, torch.arange(6).expand(9, 6))
    hulls = model.search(x, 7, beams=3)
    for places in hulls.tolist():
        given = [place for place in places if place < 6]
        assert len(set(given)) == len(given)
        assert places == given + [6] * (7 - len(given))


def test_points_may_be_chosen_again_where_they_may():
    torch.manual_seed(0)
    found = PointerNetwork(8).search(points(3, sets=30), 9)
    assert ((found >= 0) & (found <= 3)).all()
    assert any(len({place for place in row if place < 3}) < sum(place < 3 for place in row) for row in found.tolist())


def test_a_dictionary_has_an_end_and_no_more_points():
    torch.manual_seed(0)
    model, x = DictionaryNetwork(8, largest=6), points(5, sets=3)
    places = geometry.hull(x)
    memory, state = model.read(x)
    words = model.words(model.answers(x, places, state), memory)
    wanted = torch.where(places == 5, 6, places)
    expected = torch.nn.functional.cross_entropy(words.flatten(0, 1), wanted.flatten())
    torch.testing.assert_close(model(x, places), expected)
    assert refuses(model, 7)
    assert not refuses(model, 6)
    with pytest.raises(ValueError, match="points: expected at most 6, got 7"):
        model(points(7), geometry.hull(points(7)))


def test_batches_of_the_task():
    task = Geometry("hull", 5, 8, tested=3)
    sizes = {task.batch("train", step, 2)[0].shape[1] for step in range(40)}
    assert sizes == {5, 6, 7, 8}
    assert task.held_out()[0].shape == (3, 8, 2)
