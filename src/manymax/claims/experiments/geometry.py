"""Points of the unit square and what is asked of them: their convex hull, their triangulation, the shortest tour."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from manymax.data.task import ACCURACY, IGNORED, Examples, Recipe, Split, Task, stream

Question = Literal["hull", "delaunay", "tour"]


def turns(points: Tensor) -> Tensor:
    """Return twice the signed area of all triangles (i, j, k), (B, n, n, n): above 0 where k is left of i to j."""
    away = points[:, None] - points[:, :, None]  # from i to j
    x, y = away.unbind(-1)
    return x[:, :, :, None] * y[:, :, None, :] - y[:, :, :, None] * x[:, :, None, :]


def hull(points: Tensor) -> Tensor:
    """Return the convex hull's corners counter-clockwise from the lowest number, (B, n + 1), then n, then -100."""
    batch, count, _ = points.shape
    itself = torch.eye(count, dtype=torch.bool)
    left = (turns(points) > 0) | itself[:, None] | itself[None]  # k = i and k = j do not count
    edge = left.all(-1) & ~itself
    following, corner = edge.long().argmax(-1), edge.any(-1)
    place = corner.long().argmax(-1)
    first, found = place, torch.full((batch, count + 1), IGNORED)
    going = torch.ones(batch, dtype=torch.bool)
    for step in range(count + 1):
        found[going, step] = place[going]
        place = following.gather(1, place.clamp_max(count - 1)[:, None])[:, 0]
        ending = going & (place == first)
        if step < count:
            found[ending, step + 1] = count
        going = going & ~ending
        if not bool(going.any()):
            break
    return found


def delaunay(points: Tensor) -> Tensor:
    """Return the Delaunay triangles, each with rising numbers, by their incentres from the left, then n, then -100.

    A triangle is one of them if no other point is in its circle.
    """
    count = points.shape[1]
    triples = torch.tensor(list(combinations(range(count), 3)))
    corners = points[:, triples].double()  # (B, t, 3, 2)
    away = corners[:, :, :, None] - points.double()[:, None, None]  # (B, t, 3, n, 2)
    rows = torch.cat([away, away.square().sum(-1, keepdim=True)], -1).movedim(3, 2)  # (B, t, n, 3, 3)
    first, second = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    sense = (first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]).sign()
    inside = torch.linalg.det(rows) * sense[..., None] > 0
    own = (triples[:, :, None] == torch.arange(count)).any(1)
    empty = ~(inside & ~own).any(-1)
    sides = (corners.roll(1, 2) - corners.roll(-1, 2)).norm(dim=-1, keepdim=True)
    incentre = (sides * corners).sum(2) / sides.sum(2)
    order = torch.where(empty, incentre[..., 0], torch.inf).argsort(1)
    kept = empty.sum(1)
    found = triples[order].flatten(1)
    place = torch.arange(found.shape[1] + 1)
    found = torch.cat([found, found.new_full((len(found), 1), count)], 1)
    found = torch.where(place == 3 * kept[:, None], count, found)
    found = torch.where(place > 3 * kept[:, None], IGNORED, found)
    return found[:, : int(3 * kept.max()) + 1].contiguous()


def tour(points: Tensor) -> Tensor:
    """Return the shortest closed tour from place 0, the lower neighbour of 0 next, (B, n), of all orders there are."""
    count = points.shape[1]
    orders = [(0, *rest) for rest in permutations(range(1, count)) if rest[0] < rest[-1] or count < 3]
    every = torch.tensor(orders)
    lengths = torch.stack([length(points, one.expand(len(points), -1)) for one in every], 1)
    found: Tensor = every[lengths.argmin(1)]
    return found


def length(points: Tensor, places: Tensor) -> Tensor:
    """Return the lengths of closed tours (B, n), (B,)."""
    way = points.gather(1, places[..., None].expand(-1, -1, 2))
    found: Tensor = torch.linalg.vector_norm(way - way.roll(1, 1), dim=-1).sum(1)
    return found


ANSWERS = {"hull": hull, "delaunay": delaunay, "tour": tour}


def coverage(points: Tensor, places: Tensor) -> tuple[float, bool]:
    """Return the area of a polygon over that of the hull, 0 if it crosses itself, and whether it is the hull.

    Args:
        points: (n, 2).
        places: what was answered, up to the end n.
    """
    count = len(points)
    right = [int(place) for place in hull(points[None])[0] if 0 <= place < count]
    given: list[int] = []
    for place in places.tolist():
        if place == count:
            break
        given.append(place)
    lowest = given.index(min(given)) if given else 0
    exact = given[lowest:] + given[:lowest] == right
    if len(given) < 3 or len(set(given)) < len(given) or _crosses(points[given]):
        return 0.0, exact
    return float(_area(points[given]) / _area(points[right])), exact


def _area(polygon: Tensor) -> Tensor:
    x, y = polygon.double().unbind(-1)
    return (x * y.roll(-1) - y * x.roll(-1)).sum().abs() / 2


def _crosses(polygon: Tensor) -> bool:
    """Return whether two sides that are no neighbours cross."""
    side = turns(polygon[None])[0] > 0
    count = len(polygon)
    for i, j in combinations(range(count), 2):
        a, b, c, d = i, (i + 1) % count, j, (j + 1) % count
        if len({a, b, c, d}) == 4 and side[a, b, c] != side[a, b, d] and side[c, d, a] != side[c, d, b]:
            return True
    return False


@dataclass(frozen=True)
class Geometry(Task):
    """Answer a question about points of the unit square with places among them.

    Args:
        question: "hull", "delaunay" or "tour".
        least: points at least; each batch has a number of its own.
        most: points at most.
        tested: sets of `most` points for testing.
    """

    name: ClassVar = "geometry"
    kind: ClassVar = "classification"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=128, steps=1000, learning_rate=2e-3, warmup=20)

    question: Question = "hull"
    least: int = 5
    most: int = 10
    tested: int = 200

    @property
    def num_classes(self) -> int:
        """Return the number of places, the end among them."""
        return self.most + 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the most points."""
        return {"largest": self.most}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return sets of points (count, n, 2) and places (count, T)."""
        del split  # points are never drawn twice
        n = int(torch.randint(self.least, self.most + 1, (), generator=generator))
        points = torch.rand(count, n, 2, generator=generator)
        return points, ANSWERS[self.question](points)

    def held_out(self) -> Examples:
        """Return sets of `most` points."""
        points = torch.rand(self.tested, self.most, 2, generator=stream(self.name, self.question, self.most))
        return points, ANSWERS[self.question](points)
