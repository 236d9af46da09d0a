"""The viscous Burgers equation: from a function on a circle to what becomes of it, by a spectral solver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.claims.experiments.solved import Solved
from manymax.data.task import Examples

SOLVED = 256  # points of the solver; with viscosity 0.1 a solution has no finer detail
MODES = 64  # of the functions at the start


@dataclass(frozen=True)
class Burgers(Solved):
    r"""Say what a function becomes after time 1 under $u_t + u u_x = \nu u_{xx}$ on a circle of length 1.

    The functions at the start are normal with mean 0 and covariance $625 (-\Delta + 25)^{-2}$ without its constant
    part, as in Li et al., 2020, Fourier Neural Operator, arXiv:2010.08895.

    Args:
        points: where functions are known.
        count: functions for training.
        tested: functions for testing.
        viscosity: $\nu$.
        steps: of the solver.
    """

    name: ClassVar = "burgers"
    family: ClassVar = "gpt"

    viscosity: float = 0.1
    steps: int = 200

    def solved(self, count: int, generator: torch.Generator) -> Examples:
        """Return functions at time 0 and at time 1, each (count, points)."""
        start = functions(count, generator)
        end = solve(start, self.viscosity, self.steps)
        return resample(start, self.points).float(), resample(end, self.points).float()


def functions(count: int, generator: torch.Generator) -> Tensor:
    """Return random functions at SOLVED points, (count, SOLVED) in float64."""
    wave = 2 * math.pi * torch.arange(1, MODES + 1, dtype=torch.float64)
    spread = 25 * math.sqrt(2) / (wave.square() + 25)
    cosine, sine = torch.randn(2, count, MODES, generator=generator, dtype=torch.float64) * spread
    angles = wave[:, None] * torch.arange(SOLVED) / SOLVED
    found: Tensor = cosine @ angles.cos() + sine @ angles.sin()
    return found


def solve(start: Tensor, viscosity: float, steps: int) -> Tensor:
    """Return the functions (count, points) after time 1.

    The diffusion is exact, by a factor of each frequency; the rest goes by Runge and Kutta's method of order 4, with
    products of which the upper third of frequencies is cut.
    """
    points, step = start.shape[1], 1 / steps
    wave = 2 * math.pi * torch.arange(points // 2 + 1, dtype=torch.float64)
    half = torch.exp(-viscosity * wave.square() * step / 2)
    cut = torch.where(torch.arange(points // 2 + 1) <= points // 3, 0.5j * wave, 0)

    def change(spectrum: Tensor) -> Tensor:
        changed: Tensor = -cut * torch.fft.rfft(torch.fft.irfft(spectrum, n=points).square())
        return changed

    now = torch.fft.rfft(start)
    for _ in range(steps):
        first = change(now)
        second = change(half * (now + step / 2 * first))
        third = change(half * now + step / 2 * second)
        fourth = change(half * (half * now + step * third))
        now = half.square() * (now + step / 6 * first) + step / 3 * half * (second + third) + step / 6 * fourth
    end: Tensor = torch.fft.irfft(now, n=points)
    return end


def resample(functions: Tensor, points: int) -> Tensor:
    """Return periodic functions (count, n) at another number of points, by their frequencies."""
    spectrum = torch.fft.rfft(functions)
    found: Tensor = torch.fft.irfft(spectrum, n=points)
    return found * (points / functions.shape[1])
