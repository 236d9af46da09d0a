"""Flow through a medium of two kinds: from the coefficient on a square to the pressure, by finite volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from manymax.claims.experiments.solved import Solved
from manymax.data.task import Examples

MODES = 64  # along a side, of the field whose sign says which kind of medium is where
HIGH, LOW = 12.0, 3.0
UNIT = 0.01  # of pressures, which are about as large
CHUNK = 64  # functions that are solved at once


@dataclass(frozen=True)
class Darcy(Solved):
    r"""Say what u is where $-\nabla \cdot (a \nabla u) = 1$ on the unit square and u = 0 around it.

    The coefficient a is 12 where a random field is positive and 3 elsewhere. The field is normal with mean 0 and
    covariance $(-\Delta + 9)^{-2}$ with slope 0 at the edges, without its constant part, as in Li et al., 2020,
    Fourier Neural Operator, arXiv:2010.08895. Inputs are 1 and -1 for the two coefficients; pressures are in units of
    0.01.

    Args:
        points: along a side, where functions are known.
        count: functions for training.
        tested: functions for testing.
        finer: distances of the solver's points in one of these.
    """

    name: ClassVar = "darcy"
    family: ClassVar = "vit"

    points: int = 29
    finer: int = 2

    def solved(self, count: int, generator: torch.Generator) -> Examples:
        """Return coefficients and pressures, each (count, points, points)."""
        permeable = fields(count, (self.points - 1) * self.finer + 1, generator) > 0
        coefficients = torch.where(permeable, HIGH, LOW).double()
        pressures = torch.cat([solve(a, torch.ones_like(a)) for a in torch.split(coefficients, CHUNK)]) / UNIT
        seen = (slice(None), *(slice(None, None, self.finer),) * 2)
        return 2 * permeable[seen].float() - 1, pressures[seen].float()


def fields(count: int, points: int, generator: torch.Generator) -> Tensor:
    """Return random functions on the unit square, (count, points, points) in float64."""
    wave = math.pi * torch.arange(MODES, dtype=torch.float64)
    spread = 1 / (wave.square()[:, None] + wave.square() + 9)
    spread[0, 0] = 0
    cosines = (wave[:, None] * torch.linspace(0, 1, points, dtype=torch.float64)).cos()
    cosines[1:] *= math.sqrt(2)
    drawn = torch.randn(count, MODES, MODES, generator=generator, dtype=torch.float64) * spread
    found: Tensor = cosines.T @ drawn @ cosines
    return found


def solve(coefficient: Tensor, source: Tensor) -> Tensor:
    r"""Return u with $-\nabla \cdot (a \nabla u) = f$ on the unit square and u = 0 around it.

    What flows from a point to its neighbour is the difference of u times the harmonic mean of their coefficients, which
    is what two media behind each other let through. Rows of points are eliminated one after the other, and u is found
    from the last to the first, without error but for rounding.

    Args:
        coefficient: a at the points, (B, n, n) and positive.
        source: f at the points, (B, n, n).
    """
    down, across = harmonic_means(coefficient, 1)[:, :, 1:-1], harmonic_means(coefficient, 2)[:, 1:-1]
    whole = down[:, :-1] + down[:, 1:] + across[:, :, :-1] + across[:, :, 1:]
    flow = source[:, 1:-1, 1:-1] / (coefficient.shape[1] - 1) ** 2
    left = torch.zeros_like(flow[:, 0])[..., None]  # what elimination leaves in the next row, matrix and right side
    carried = torch.zeros_like(flow[:, 0])
    rows = []
    for row in range(flow.shape[1]):
        ties = torch.diag_embed(across[:, row, 1:-1], 1)
        matrix = torch.diag_embed(whole[:, row]) - ties - ties.mT - left
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        right, step = flow[:, row] + carried, down[:, row + 1]
        rows.append((inverse, right, step))
        left = step[:, :, None] * inverse * step[:, None]
        carried = step * _product(inverse, right)
    found = [torch.zeros_like(carried)]
    for inverse, right, step in reversed(rows):
        found.append(_product(inverse, right + step * found[-1]))
    return F.pad(torch.stack(found[:0:-1], 1), (1, 1, 1, 1))


def harmonic_means(x: Tensor, dim: int) -> Tensor:
    """Return the harmonic mean of each two neighbours along a side, one fewer than there are."""
    count = x.shape[dim] - 1
    first, second = x.narrow(dim, 0, count), x.narrow(dim, 1, count)
    return 2 * first * second / (first + second)


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    found: Tensor = (matrix @ vector[..., None])[..., 0]
    return found
