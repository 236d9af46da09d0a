"""ListOps: nested operations on lists of digits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from manymax.data.task import ACCURACY, IGNORED, Examples, Recipe, Split, Task, share, stream

OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: (sorted(values)[(len(values) - 1) // 2] + sorted(values)[len(values) // 2]) // 2,
    "[SM": lambda values: sum(values) % 10,
}
DIGITS = [str(digit) for digit in range(10)]
TOKENS = [*DIGITS, *OPERATIONS, "]", "<pad>"]
OPERATION_SHARE = 0.25  # of the nodes above the greatest depth, as in Long Range Arena
HELD_OUT = 1 / 8


@dataclass(frozen=True)
class ListOps(Task):
    """ListOps: evaluate nested minima, maxima, medians and sums modulo 10 of digits.

    An expression is a digit, or `[OP` and 2 to `arguments` expressions and `]`, with OP one of MIN, MAX, MED (the
    median, rounded down) and SM (the sum modulo 10). The root is an operation; below it a node is an operation with
    probability 1/4, and a digit at depth `depth`. Expressions shorter than `shortest` or longer than `length` tokens
    are drawn again. The answer, a digit, is asked at the last token; padding follows it, where causal models do not
    look. An expression belongs to the validation split by its hash, so that none is in both.

    Args:
        depth: nodes on the longest path from the root; 10 in Long Range Arena.
        arguments: the most arguments of an operation; 10 there.
        length: the most tokens, and the width of a batch; 2000 there.
        shortest: the fewest tokens; 500 there.
        validation: expressions in the validation set.

    Source:
        Nangia & Bowman, 2018, ListOps: A Diagnostic Dataset for Latent Tree Learning, arXiv:1804.06028; generator:
        Tay et al., 2020, Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
    """

    name: ClassVar = "listops"
    kind: ClassVar = "classification"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=32, steps=250, learning_rate=3e-3, warmup=25, model={"depth": 2})

    depth: int = 4
    arguments: int = 5
    length: int = 48
    shortest: int = 4
    validation: int = 512

    def __post_init__(self) -> None:
        """Refuse sizes that no expression has."""
        self._at_least(depth=2, arguments=2, shortest=4, validation=1, length=self.shortest)
        if self.depth == 2 and self.shortest > self.arguments + 2:
            raise ValueError(f"shortest: expected at most arguments + 2 at depth 2, got {self.shortest}")

    @property
    def num_classes(self) -> int:
        """Return 10, one class a digit."""
        return len(DIGITS)

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the vocabulary and the classes."""
        return {"vocabulary": len(TOKENS), "num_classes": self.num_classes}

    def expression(self, rng: random.Random, split: Split) -> tuple[list[str], int]:
        """Return a random expression of a split, as tokens, and its value."""
        while True:
            tokens, value = _operation(rng, 1, self.depth, self.arguments)
            fits = self.shortest <= len(tokens) <= self.length
            if fits and (share(" ".join(tokens)) < HELD_OUT) == (split == "validation"):
                return tokens, value

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return fresh expressions, padded on the right to `length`."""
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))  # noqa: S311  # nothing secret here
        inputs = torch.full((count, self.length), TOKENS.index("<pad>"))
        targets = torch.full_like(inputs, IGNORED)
        for row in range(count):
            tokens, value = self.expression(rng, split)
            inputs[row, : len(tokens)] = torch.tensor([TOKENS.index(token) for token in tokens])
            targets[row, len(tokens) - 1] = value
        return inputs, targets

    def held_out(self) -> Examples:
        """Return `validation` expressions."""
        return self.draw("validation", self.validation, stream(self.name, "held out"))


def _operation(rng: random.Random, depth: int, deepest: int, arguments: int) -> tuple[list[str], int]:
    """Return a random operation whose root is at `depth`, as tokens, and its value."""
    tokens, values = [rng.choice(list(OPERATIONS))], []
    for _ in range(rng.randint(2, arguments)):
        if depth + 1 < deepest and rng.random() < OPERATION_SHARE:
            inner, value = _operation(rng, depth + 1, deepest, arguments)
        else:
            value = rng.randrange(10)
            inner = [DIGITS[value]]
        tokens += inner
        values.append(value)
    return [*tokens, "]"], OPERATIONS[tokens[0]](values)
