"""Hulls, tours and triangles by pointing at the input (Vinyals et al., 2015)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.geometry import Geometry, coverage, length
from manymax.claims.experiments.training import part, train
from manymax.models.pointer_network import DictionaryNetwork, PointerNetwork


def learnt(
    make: Callable[[], PointerNetwork], task: Geometry, seed: int, numbers: Numbers, progress: Progress
) -> PointerNetwork:
    """Return a trained network."""
    torch.manual_seed(seed)
    model = make()
    train(model, task, seed, numbers, progress)
    return model.eval()


def hulls(model: PointerNetwork, task: Geometry, points: int, beams: int) -> tuple[float, float]:
    """Return the mean share of the hull's area that the answers cover, and the share of exact answers."""
    inputs, _ = replace(task, least=points, most=points).held_out()
    found = [coverage(x, places) for x, places in zip(inputs, model.search(inputs, points + 1, beams), strict=True)]
    areas, exact = zip(*found, strict=True)
    return sum(areas) / len(areas), sum(exact) / len(exact)


def refuses(model: PointerNetwork, points: int) -> bool:
    """Return whether a network cannot answer for so many points."""
    try:
        model.search(torch.rand(1, points, 2), points + 1)
    except ValueError:
        return True
    return False


def tour_ratio(model: PointerNetwork, task: Geometry, beams: int) -> float:
    """Return the mean of the answered tour's length over the shortest's."""
    inputs, best = task.held_out()
    found = model.search(inputs, task.most, beams, ends=False)
    return float((length(inputs, found) / length(inputs, best)).mean())


def triangles(model: PointerNetwork, task: Geometry, beams: int) -> float:
    """Return the mean share of the right triangles that are answered."""
    inputs, best = task.held_out()
    found = model.search(inputs, best.shape[1], beams)

    def sets(places: Tensor) -> set[tuple[int, ...]]:
        valid = [place for place in places.tolist() if 0 <= place < task.most]
        return {tuple(sorted(valid[i : i + 3])) for i in range(0, len(valid) - 2, 3)}

    shares = [len(sets(a) & sets(b)) / len(sets(b)) for a, b in zip(found, best, strict=True)]
    return sum(shares) / len(shares)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train everything."""
    beams, width = numbers["beams"], numbers["width"]
    hull = Geometry("hull", **numbers["hull"]["points"], tested=numbers["tested"])
    tour = Geometry("tour", **numbers["tour"]["points"], tested=numbers["tested"])
    delaunay = Geometry("delaunay", **numbers["delaunay"]["points"], tested=numbers["tested"])
    dictionary = learnt(
        lambda: DictionaryNetwork(width, largest=hull.most, both_ways=True, once=True),
        hull,
        seed,
        numbers["hull"],
        part(progress, "words", 0, 4),
    )
    pointer, tourist, triangulator = (
        learnt(
            partial(PointerNetwork, width, both_ways=True, once=task.question != "delaunay"),
            task,
            seed,
            numbers[task.question],
            part(progress, task.question, i, 4),
        )
        for i, task in enumerate((hull, tour, delaunay), start=1)
    )
    covered, exact = hulls(pointer, hull, hull.most, beams)
    theirs, theirs_exact = hulls(dictionary, hull, hull.most, beams)
    return {
        "coverage": covered,
        "coverage_double": hulls(pointer, hull, 2 * hull.most, beams)[0],
        "exact_ratio": exact / max(theirs_exact, 1 / numbers["tested"]),
        "words_refuse": float(refuses(dictionary, hull.most + 1) and not refuses(pointer, hull.most + 1)),
        "tour_ratio": tour_ratio(tourist, tour, beams),
        "exact": exact,
        "words_coverage": theirs,
        "words_exact": theirs_exact,
        "triangles": triangles(triangulator, delaunay, beams),
        **{f"coverage_{n}": hulls(pointer, hull, n, beams)[0] for n in numbers["further"]},
    }
