"""Multi-query associative recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from manymax.data.task import ACCURACY, IGNORED, Examples, Recipe, Split, Task, stream


@dataclass(frozen=True)
class Recall(Task):
    r"""Multi-query associative recall: say the value that went with a key when the key comes again.

    $$k_1 v_1 k_2 v_2 \ldots k_P v_P \; \ldots k_j \ldots k_i \ldots \quad\to\quad v_j \text{ at } k_j, \; v_i
    \text{ at } k_i$$

    Every key is asked once, at slot $g \in \{0, 1, \ldots\}$ of two tokens after the pairs, drawn without replacement
    with probability $\propto (g + 1)^{a - 1}$: gaps between repetitions follow a power law, as in text. Keys are tokens
    1 to V/2 - 1 and values V/2 to V - 1, each used at most once in a sequence; all other positions hold random tokens.

    Args:
        vocabulary: V, even; the paper's experiments use 8192.
        pairs: P.
        length: tokens in a sequence, at least 4 P and even.
        power: a; 1 makes the gaps uniform.
        filler: whether other positions hold random tokens, else the token 0.
        validation: sequences in the validation set.

    Source:
        Arora et al., 2023, Zoology: Measuring and Improving Recall in Efficient Language Models, arXiv:2312.04927.
    """

    name: ClassVar = "recall"
    kind: ClassVar = "language"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=64, steps=200, learning_rate=3e-3, warmup=20, model={"depth": 2})

    vocabulary: int = 64
    pairs: int = 4
    length: int = 32
    power: float = 0.01
    filler: bool = True
    validation: int = 512

    def __post_init__(self) -> None:
        """Refuse sizes into which the pairs and their questions do not fit."""
        self._at_least(pairs=1, validation=1)
        for name in ("vocabulary", "length"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name}: expected an even number, got {getattr(self, name)}")
        self._at_least(length=4 * self.pairs, vocabulary=2 * self.pairs + 2)

    @property
    def num_classes(self) -> int:
        """Return the size of the vocabulary."""
        return self.vocabulary

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the vocabulary."""
        return {"vocabulary": self.vocabulary}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return fresh sequences; the splits differ by their stream of random numbers."""
        del split

        def choose(odds: torch.Tensor) -> torch.Tensor:
            return torch.multinomial(odds.expand(count, -1), self.pairs, generator=generator)

        half, context = self.vocabulary // 2, 2 * self.pairs
        keys = choose(torch.ones(half - 1)) + 1
        values = choose(torch.ones(half)) + half
        slots = (self.length - context) // 2
        positions = context + 2 * choose(torch.arange(1.0, slots + 1) ** (self.power - 1))
        high = self.vocabulary if self.filler else 1
        inputs = torch.randint(high, (count, self.length), generator=generator)
        inputs[:, 0:context:2], inputs[:, 1:context:2] = keys, values
        inputs.scatter_(1, positions, keys)
        targets = torch.full_like(inputs, IGNORED).scatter_(1, positions, values)
        return inputs, targets

    def held_out(self) -> Examples:
        """Return `validation` sequences."""
        return self.draw("validation", self.validation, stream(self.name, "held out"))
