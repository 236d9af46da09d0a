"""The viscous Burgers equation: from a function on a circle to what becomes of it, by a spectral solver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.data.task import ACCURACY, Examples, FiniteTask, Recipe, Split, stream

SOLVED = 256  # points of the solver; with viscosity 0.1 a solution has no finer detail
MODES = 64  # of the functions at the start


@dataclass(frozen=True)
class Burgers(FiniteTask):
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
    kind: ClassVar = "classification"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=16, steps=256, learning_rate=2e-3, warmup=20)

    points: int = 256
    count: int = 512
    tested: int = 128
    viscosity: float = 0.1
    steps: int = 200

    @property
    def num_classes(self) -> int:
        """Return 1: the answer is a number for each point."""
        return 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return nothing: a model of functions takes any number of points."""
        return {}

    def examples(self, split: Split) -> Examples:
        """Return functions at time 0 and at time 1, each (count, points)."""
        return self._solved[split]

    @cached_property
    def _solved(self) -> dict[Split, Examples]:
        found: dict[Split, Examples] = {}
        for split, count in (("train", self.count), ("validation", self.tested)):
            start = functions(count, stream(self.name, split))
            end = solve(start, self.viscosity, self.steps)
            found[split] = (resample(start, self.points).float(), resample(end, self.points).float())  # type: ignore[index]
        return found


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
