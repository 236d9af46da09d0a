"""Clouds of points on eight kinds of surfaces, stretched, turned and blurred at random."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

STRETCH = 1.5  # an axis is stretched or shrunk by at most this
_CORNERS = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])


def _uniform(shape: tuple[int, ...], generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _ring(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return random points (..., 2) on the unit circle."""
    angle = _uniform(shape, generator, 0, 2 * math.pi)
    return torch.stack([angle.cos(), angle.sin()], -1)


def _sphere(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(*shape, 3, generator=generator), dim=-1)


def _cube(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    points = _uniform((*shape, 3), generator, -1, 1)
    return points / points.abs().amax(-1, keepdim=True)


def _cylinder(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.cat([_ring(shape, generator), _uniform((*shape, 1), generator, -1, 1)], -1)


def _cone(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    down = _uniform((*shape, 1), generator).sqrt()  # a cone's circumference grows from its tip
    return torch.cat([_ring(shape, generator) * down, 1 - 2 * down], -1)


def _double_cone(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    height = _uniform((*shape, 1), generator).sqrt() * _uniform((*shape, 1), generator, -1, 1).sign()
    return torch.cat([_ring(shape, generator) * height.abs(), height], -1)


def _torus(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    tube = 0.4 * _ring(shape, generator)
    return torch.cat([_ring(shape, generator) * (1 + tube[..., :1]), tube[..., 1:]], -1)


def _tetrahedron(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    shares = -_uniform((*shape, 4), generator, 1e-9, 1).log()
    shares = shares.scatter(-1, torch.randint(4, (*shape, 1), generator=generator), 0.0)
    return shares / shares.sum(-1, keepdim=True) @ _CORNERS


def _helix(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    turn = _uniform(shape, generator, -1, 1)
    angle = 2 * math.pi * turn
    return torch.stack([angle.cos(), angle.sin(), turn], -1)


KINDS: tuple[Callable[[tuple[int, ...], torch.Generator], Tensor], ...] = (
    _sphere,
    _cube,
    _cylinder,
    _cone,
    _double_cone,
    _torus,
    _tetrahedron,
    _helix,
)


def clouds(count: int, points: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return clouds (count, points, 3) and their kinds (count,).

    Args:
        count: clouds.
        points: of each.
        noise: standard deviation that is added to each coordinate.
        generator: source of everything random.
    """
    labels = torch.randint(len(KINDS), (count,), generator=generator)
    surface = torch.empty(count, points, 3)
    for label, kind in enumerate(KINDS):
        chosen = labels == label
        surface[chosen] = kind((int(chosen.sum()), points), generator)
    stretch = STRETCH ** _uniform((count, 1, 3), generator, -1, 1)
    turn = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator)).Q
    return (surface * stretch) @ turn + noise * torch.randn(count, points, 3, generator=generator), labels
