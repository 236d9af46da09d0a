"""The task of cases: which rule applies depends on which tokens are there (Richter and Wattenhofer, 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from manymax.data.task import ACCURACY, Examples, Recipe, Split, Task, stream

LEAST, FIRST = 64, 50  # the tokens that decide


@dataclass(frozen=True)
class Cases(Task):
    """Point to the least token if 64 is there, else to the first place if 50 is, else to the largest; ties to the left.

    Args:
        length: tokens of a sequence, each drawn evenly from 0 to 99.
        tested: sequences for testing.
    """

    name: ClassVar = "cases"
    kind: ClassVar = "classification"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=16, steps=600, learning_rate=0.3**5, warmup=1)

    length: int = 64
    tested: int = 1000
    vocabulary: ClassVar[int] = 100

    @property
    def num_classes(self) -> int:
        """Return the number of places."""
        return self.length

    @property
    def model_options(self) -> dict[str, Any]:
        """Return vocabulary and places."""
        return {"vocabulary": self.vocabulary, "num_classes": self.length}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return sequences (count, length) and places (count,)."""
        del split  # sequences are never drawn twice
        tokens = torch.randint(self.vocabulary, (count, self.length), generator=generator)
        # argmin and argmax of torch do not promise the first of equals; a small slope decides.
        place = torch.arange(self.length) / (2 * self.length)
        least, largest = (tokens + place).argmin(-1), (tokens - place).argmax(-1)
        otherwise = torch.where((tokens == FIRST).any(-1), 0, largest)
        return tokens, torch.where((tokens == LEAST).any(-1), least, otherwise)

    def held_out(self) -> Examples:
        """Return the sequences for testing."""
        return self.draw("validation", self.tested, stream(self.name, "validation"))
