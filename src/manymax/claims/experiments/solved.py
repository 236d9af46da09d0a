"""Tasks from functions to functions, whose answers a solver gives once."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from manymax.data.task import ACCURACY, Examples, FiniteTask, Recipe, Split, stream


@dataclass(frozen=True)
class Solved(FiniteTask):
    """Say what the solution of an equation is.

    Args:
        points: along a side, where functions are known.
        count: functions for training.
        tested: functions for testing.
    """

    kind: ClassVar = "classification"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=16, steps=256, learning_rate=2e-3, warmup=20)

    points: int = 256
    count: int = 512
    tested: int = 128

    @property
    def num_classes(self) -> int:
        """Return 1: the answer is a number for each point."""
        return 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return nothing: a model of functions takes any number of points."""
        return {}

    @abstractmethod
    def solved(self, count: int, generator: torch.Generator) -> Examples:
        """Return what is given and its solution, `count` functions each."""

    def examples(self, split: Split) -> Examples:
        """Return what is given and its solutions."""
        return self._solved[split]

    @cached_property
    def _solved(self) -> dict[Split, Examples]:
        counts: dict[Split, int] = {"train": self.count, "validation": self.tested}
        return {split: self.solved(count, stream(self.name, split)) for split, count in counts.items()}
