"""Examples at hand as a task, and the network that most of them are learnt by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from manymax.data.task import ACCURACY, Examples, FiniteTask, Split


@dataclass(frozen=True, eq=False)
class Given(FiniteTask):
    """Inputs with labels, some of which may be wrong, or with another view of the same thing.

    Args:
        train: inputs (n, ...) and what belongs to them (n, ...), for training.
        validation: the same, held out.
    """

    name: ClassVar = "given"
    kind: ClassVar = "classification"
    family: ClassVar = "vit"
    metric: ClassVar = ACCURACY

    train: Examples
    validation: Examples

    @property
    def num_classes(self) -> int:
        """Return how many labels there are."""
        return int(max(labels.max() for _, labels in (self.train, self.validation))) + 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return nothing: models know what they are made for."""
        return {}

    def examples(self, split: Split) -> Examples:
        """Return every example of a split."""
        return self.train if split == "train" else self.validation


def perceptron(width: int, hidden: Sequence[int], dim: int) -> nn.Sequential:
    """Return a network with hidden layers of these widths."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, dim))
