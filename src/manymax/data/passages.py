"""Tasks whose examples are pieces of a long text."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.data.task import IGNORED, Examples, Split, Task


class Passages(Task):
    """A text a split, as tokens; the targets of a piece are its next tokens. Subclasses have the field `length`."""

    kind: ClassVar = "language"
    family: ClassVar = "gpt"
    unit: ClassVar[str]  # what a token is, in the plural
    length: int

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor]:
        """Return the tokens for training and for validation, (count,) of any whole numbers' dtype."""

    @cached_property
    def _splits(self) -> dict[Split, Tensor]:
        train, held_out = self.read()
        return {"train": train, "validation": held_out}

    def _long_enough(self, where: str) -> None:
        """Refuse a text that is too short for one example."""
        self._at_least(length=1)
        for split, text in self._splits.items():
            if len(text) <= self.length:
                raise ValueError(
                    f"path: expected more than {self.length} {self.unit} for {split}, got {len(text)} of {where}"
                )

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return pieces of the text from random places; the targets are the inputs' next tokens."""
        text = self._splits[split]
        starts = torch.randint(len(text) - self.length, (count, 1), generator=generator)
        pieces = text[starts + torch.arange(self.length + 1)].long()
        return pieces[:, :-1], pieces[:, 1:]

    def held_out(self) -> Examples:
        """Return the validation text cut into pieces; every token but the first is asked exactly once."""
        text = self._splits["validation"].long()
        rows = -(-(len(text) - 1) // self.length)
        padding = rows * self.length + 1 - len(text)
        inputs, targets = F.pad(text[:-1], (0, padding)), F.pad(text[1:], (0, padding), value=IGNORED)
        return inputs.view(rows, self.length), targets.view(rows, self.length)
