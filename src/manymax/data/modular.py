"""Modular addition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from manymax.data.task import ACCURACY, IGNORED, Examples, FiniteTask, Recipe, Split, stream


@dataclass(frozen=True)
class Modular(FiniteTask):
    r"""Modular addition: the whole table of a + b mod p, part of it shown, the rest asked; the setting of grokking.

    $$[a, b, =] \to (a + b) \bmod p, \qquad 0 \le a, b < p$$

    The token "=" is p. The table's $p^2$ rows are shuffled once, always the same way; the first `train_share` of them
    are for training.

    Args:
        modulus: p.
        train_share: fraction of the table to train on, between 0 and 1.

    Source:
        Power et al., 2022, Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets,
        arXiv:2201.02177; p = 113 as in Nanda et al., 2023, Progress Measures for Grokking via Mechanistic
        Interpretability, arXiv:2301.05217.
    """

    name: ClassVar = "modular"
    kind: ClassVar = "classification"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(
        batch_size=512, steps=300, learning_rate=1e-2, warmup=20, weight_decay=1.0, model={"depth": 2}
    )

    modulus: int = 113
    train_share: float = 0.4

    def __post_init__(self) -> None:
        """Refuse a split that leaves one side empty."""
        self._at_least(modulus=2)
        if not 1 <= self._shown < self.modulus**2:
            raise ValueError(
                f"train_share: expected a fraction that leaves both splits some of {self.modulus**2} rows, "
                f"got {self.train_share}"
            )

    @property
    def _shown(self) -> int:
        return round(self.train_share * self.modulus**2)

    @property
    def num_classes(self) -> int:
        """Return p."""
        return self.modulus

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the vocabulary, p and "=", and the classes."""
        return {"vocabulary": self.modulus + 1, "num_classes": self.modulus}

    @cached_property
    def table(self) -> Examples:
        """Return all rows in the order of the split: inputs (p^2, 3), and sums (p^2,)."""
        order = torch.randperm(self.modulus**2, generator=stream(self.name, self.modulus))
        left, right = order // self.modulus, order % self.modulus
        return torch.stack([left, right, torch.full_like(left, self.modulus)], -1), (left + right) % self.modulus

    def examples(self, split: Split) -> Examples:
        """Return the rows of a split, with the sum asked at "="."""
        rows = slice(None, self._shown) if split == "train" else slice(self._shown, None)
        inputs, sums = self.table
        targets = torch.full_like(inputs, IGNORED)
        targets[:, -1] = sums
        return inputs[rows], targets[rows]
