"""Regular languages: follow a finite automaton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from manymax._names import closest
from manymax.data.task import ACCURACY, IGNORED, Examples, Recipe, Split, Task, stream

LANGUAGES = ("parity", "even-pairs", "cycle", "arithmetic", "commutative", "dihedral", "alternating")


class Automaton(NamedTuple):
    """A finite automaton.

    Attributes:
        table: the state that follows, (states, symbols).
        start: the state before the first symbol.
        label: what a state is called, (states,).
    """

    table: Tensor
    start: int
    label: Tensor


@dataclass(frozen=True)
class Regular(Task):
    r"""Follow a finite automaton: say after each symbol where the symbols so far have led.

    $$z_t = \delta(z_{t-1}, x_t), \qquad x_1 x_2 \ldots x_N \to \ell(z_1)\, \ell(z_2) \ldots \ell(z_N)$$

    "parity" counts ones; "even-pairs" asks whether the first and the last symbol are equal; "cycle" walks around n
    places by -1, 0 or 1; "arithmetic" evaluates digits joined by +, - and * modulo n, products first, asked at digits
    alone. The others ask for the product of group elements, each symbol a generator: "commutative" is C2 x Cn, a toggle
    and a step; "dihedral" Dn, a reflection and a rotation; "alternating" A5, a cycle of five and a double swap.

    Args:
        language: one of the seven.
        order: n, of "cycle", "arithmetic", "commutative" and "dihedral".
        length: N in training.
        test_length: N in the validation set; None is length.
        every: whether every place is asked, else the last alone; of "arithmetic" the last digit.
        validation: sequences in the validation set.

    Source:
        Terzić et al., 2024, On the Expressiveness and Length Generalization of Selective State-Space Models on Regular
        Languages, arXiv:2412.19350; the first four as in Delétang et al., 2022, Neural Networks and the Chomsky
        Hierarchy, arXiv:2207.02098, groups as in Liu et al., 2022, Transformers Learn Shortcuts to Automata,
        arXiv:2210.10749. All of them ask for the last place alone.
    """

    name: ClassVar = "regular"
    kind: ClassVar = "classification"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=64, steps=200, learning_rate=3e-3, warmup=20, model={"depth": 1})

    language: str = "parity"
    order: int = 5
    length: int = 40
    test_length: int | None = None
    every: bool = True
    validation: int = 256

    def __post_init__(self) -> None:
        """Refuse a language that does not exist and sizes that make no sense."""
        if self.language not in LANGUAGES:
            hint = closest(self.language, LANGUAGES)
            raise ValueError(f"language: expected one of {', '.join(LANGUAGES)}, got {self.language!r}{hint}")
        self._at_least(order=2, length=1, validation=1)
        if self.test_length is not None:
            self._at_least(test_length=1)

    @property
    def automaton(self) -> Automaton:
        """Return the automaton."""
        return _automaton(self.language, self.order)

    @property
    def num_classes(self) -> int:
        """Return how many labels there are."""
        return int(self.automaton.label.max()) + 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the symbols and the labels."""
        return {"vocabulary": self.automaton.table.shape[1], "num_classes": self.num_classes}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return fresh sequences; the splits differ by their stream of random numbers."""
        del split
        return self._sequences(count, self.length, generator)

    def held_out(self) -> Examples:
        """Return `validation` sequences of the length for testing."""
        length = self.length if self.test_length is None else self.test_length
        return self._sequences(self.validation, length, stream(self.name, "held out"))

    def _sequences(self, count: int, length: int, generator: torch.Generator) -> Examples:
        table, start, label = self.automaton
        inputs = torch.randint(table.shape[1], (count, length), generator=generator)
        asked = torch.ones(length, dtype=torch.bool)
        if self.language == "arithmetic":  # digits at even places, operators between them
            inputs = torch.randint(self.order, (count, length), generator=generator)
            operators = torch.randint(3, (count, length // 2), generator=generator)
            inputs[:, 1::2] = operators + self.order
            asked[1::2] = False
        state, targets = torch.full((count,), start), torch.empty_like(inputs)
        for t in range(length):
            state = table[state, inputs[:, t]]
            targets[:, t] = label[state]
        if not self.every:
            asked[: int(asked.nonzero()[-1])] = False
        return inputs, torch.where(asked, targets, IGNORED)


def _automaton(language: str, order: int) -> Automaton:
    if language == "even-pairs":  # states: nothing, then 2 first + last
        follow = [[1, 4], [1, 2], [1, 2], [3, 4], [3, 4]]
        return Automaton(torch.tensor(follow), 0, torch.tensor([1, 1, 0, 0, 1]))
    if language == "arithmetic":
        return _arithmetic(order)
    wheel, places = [*range(1, order), 0], list(range(order))
    generators = {
        "parity": [[0, 1], [1, 0]],
        "cycle": [places, wheel, [order - 1, *places[:-1]]],
        "commutative": [[*places, order + 1, order], [*wheel, order, order + 1]],
        "dihedral": [[*places[::-1], order + 1, order], [*wheel, order, order + 1]],
        "alternating": [[1, 2, 3, 4, 0], [1, 0, 3, 2, 4]],
    }[language]
    return _group(generators)


def _arithmetic(order: int) -> Automaton:
    """States are n acc + term: the sum of what is complete, and the product that is not, a sign before its digit."""
    acc = torch.arange(order).repeat_interleave(order)
    term = torch.arange(order).repeat(order)
    digits = [order * acc + term * digit % order for digit in range(order)]
    total = (acc + term) % order
    columns = [*digits, order * total + 1, order * total + order - 1, order * acc + term]
    return Automaton(torch.stack(columns, 1), 1, total)


def _group(generators: list[list[int]]) -> Automaton:
    """Return the group that permutations make, its elements numbered as they are found from the identity."""
    elements = [tuple(range(len(generators[0])))]
    number = {elements[0]: 0}
    table = []
    for element in elements:  # which grows meanwhile
        row = []
        for generator in generators:
            product = tuple(element[place] for place in generator)
            if product not in number:
                number[product] = len(elements)
                elements.append(product)
            row.append(number[product])
        table.append(row)
    return Automaton(torch.tensor(table), 0, torch.arange(len(elements)))
