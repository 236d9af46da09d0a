"""Small tables of features and labels, labels that are wrong, and a classifier made of a body and a head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from manymax._extras import require
from manymax.claims.experiments.given import Given
from manymax.data.digits import Digits
from manymax.data.task import Recipe, stream
from manymax.heads.head import Head


@dataclass(frozen=True, eq=False)
class Table(Given):
    """Rows of features (n, ...) and labels (n,), some of them for testing.

    Args:
        train: features and labels for training.
        validation: the same for testing.
        classes: number of labels.
    """

    name: ClassVar = "table"
    recipe: ClassVar = Recipe(batch_size=64, steps=200, learning_rate=1e-3, warmup=10)

    classes: int

    @property
    def num_classes(self) -> int:
        """Return the number of labels."""
        return self.classes

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the number of features."""
        return {"in_features": self.train[0][0].numel()}

    def relabelled(self, labels: Tensor) -> Table:
        """Return the table with other labels for training."""
        return replace(self, train=(self.train[0], labels))


def digits(*, flat: bool = True) -> Table:
    """Return scikit-learn's digits, pixels in [0, 1], as vectors (64,) or images (1, 8, 8).

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    task = Digits()
    splits = [
        (images.flatten(1) if flat else images, labels)
        for images, labels in (task.examples("train"), task.examples("validation"))
    ]
    return Table(splits[0], splits[1], 10)


def loaded(name: str) -> Table:
    """Return scikit-learn's "wine" or "breast_cancer", features standardised, every fifth row for testing.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    data = getattr(require("sklearn.datasets", "compare"), f"load_{name}")()
    features, labels = torch.from_numpy(data.data).float(), torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=stream(name))
    return _table(features[order], labels[order])


def gaussians(classes: int = 5, features: int = 10, count: int = 1000, spread: float = 1.5) -> Table:
    """Return normal clusters of variance 1 around normal centres, standardised, every fifth row for testing."""
    generator = stream("gaussians", classes, features, count)
    centres = spread * torch.randn(classes, features, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    return _table(centres[labels] + torch.randn(count, features, generator=generator), labels)


def _table(features: Tensor, labels: Tensor) -> Table:
    held_out = torch.arange(len(labels)) % 5 == 4
    features = (features - features[~held_out].mean(0)) / features[~held_out].std(0)
    splits = [(features[kept], labels[kept]) for kept in (~held_out, held_out)]
    return Table(splits[0], splits[1], int(labels.max()) + 1)


def uniform_noise(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return labels of which a share was drawn anew, evenly from all classes."""
    drawn = torch.rand(labels.shape, generator=generator) < rate
    return torch.where(drawn, torch.randint(classes, labels.shape, generator=generator), labels)


def class_noise(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return labels of which a share was replaced by the next one."""
    drawn = torch.rand(labels.shape, generator=generator) < rate
    return torch.where(drawn, (labels + 1) % classes, labels)


class Classifier(nn.Module):
    """A body that makes features, and a head."""

    def __init__(self, body: nn.Module, head: Head) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the head's loss."""
        loss: Tensor = self.head(self.body(inputs), targets)
        return loss

    def scores(self, inputs: Tensor) -> Tensor:
        """Return the head's scores."""
        return self.head.logits(self.body(inputs))

    @torch.no_grad()
    def accuracy(self, inputs: Tensor, targets: Tensor) -> float:
        """Return the share of inputs whose label has the highest score, in evaluation mode."""
        predicted = self.eval().head.predict(self.body(inputs))
        self.train()
        return float((predicted == targets).float().mean())


def mlp(in_features: int, hidden: int, depth: int = 1) -> nn.Sequential:
    """Return linear maps to `hidden` features, each followed by ReLU."""
    sizes = [in_features, *[hidden] * depth]
    return nn.Sequential(*(layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())))
