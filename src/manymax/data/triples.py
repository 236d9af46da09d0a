"""Sets in which three tokens share an attribute, or none do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.data.task import ACCURACY, Examples, Recipe, Split, Task, stream


@dataclass(frozen=True)
class Triples(Task):
    r"""Triples: say whether three tokens of a set have the same value of one of their attributes.

    $$x_i \in \{1, \ldots, V\}^a, \quad i = 1, \ldots, n \quad\to\quad \Bigl[\max_{k, v} \sum_i [x_{ik} = v] \ge
    3\Bigr]$$

    Half of the sets have one triple, in one of their attributes; apart from it no value comes more than twice in an
    attribute. A set is an image of one row of n pixels in random order, whose channels are the attributes one by one,
    each a $\sqrt{V}$ among zeros, so that the mean square is 1.

    What is easier to count does not tell the answer. All values are equally frequent. An attribute with d pairs of
    equal tokens has $n - d$ different values; with a triple beside d pairs it has $n - d - 2$, and $d + 3$ pairs of
    equal tokens. With the triple d is uniform on 0 to $D = \lfloor n / 2 \rfloor - 3$, without it larger by 2 or 3, as
    often the one as the other. So neither the number of different values nor that of equal pairs is right with a
    probability above $1/2 + 1/(4 D + 4)$, 0.56 for 12 tokens; only their difference tells, or to know how often one
    value comes.

    Args:
        tokens: n, at least 8.
        values: V, at least n - 2.
        attributes: a; with 1 a ViT of 2 blocks learns the task in 4000 steps, with 2 it did not.
        validation: sets in the validation set.

    Source:
        Ours, for the claim of Lei et al., 2025, SoftHGNN, arXiv:2505.15325, that soft sets find what more than two
        tokens have in common. Another task of triples, which one layer of attention of moderate size cannot solve:
        Match3 in Sanford, Hsu and Telgarsky, 2023, Representational Strengths and Limitations of Transformers,
        arXiv:2306.02896.
    """

    name: ClassVar = "triples"
    kind: ClassVar = "classification"
    family: ClassVar = "vit"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=64, steps=3000, learning_rate=1e-3, warmup=20, model={"depth": 2})

    tokens: int = 12
    values: int = 10
    attributes: int = 1
    validation: int = 1024

    def __post_init__(self) -> None:
        """Refuse sizes into which a triple and the pairs do not fit."""
        self._at_least(tokens=8, attributes=1, validation=2)
        self._at_least(values=self.tokens - 2)

    @property
    def num_classes(self) -> int:
        """Return 2: no triple, or one."""
        return 2

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the image's (channels, height, width), patches of one token, and the classes."""
        return {"image": (self.attributes * self.values, 1, self.tokens), "patch": 1, "num_classes": 2}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return fresh sets, half of them with a triple; the splits differ by their stream of random numbers."""
        del split
        targets = torch.randperm(count, generator=generator) % 2
        where = torch.randint(self.attributes, (count, 1), generator=generator)
        triple = (where == torch.arange(self.attributes)) & (targets == 1)[:, None]
        codes = torch.nn.functional.one_hot(self._columns(triple.flatten(), generator), self.values)
        images = codes.reshape(count, self.attributes, self.tokens, self.values).transpose(2, 3)
        return self.values**0.5 * images.reshape(count, -1, 1, self.tokens), targets

    def _columns(self, triple: Tensor, generator: torch.Generator) -> Tensor:
        """Return the tokens' values of an attribute, (columns, n), with a triple or without, (columns,)."""
        size, most = (len(triple),), self.tokens // 2 - 3
        more = torch.where(triple, 0, 2 + torch.randint(2, size, generator=generator))
        pairs = (torch.randint(most + 1, size, generator=generator) + more)[:, None]
        equal, place = (
            3 * triple[:, None].long(),
            torch.arange(self.tokens),
        )  # first the triple, then pairs, then others
        paired, alone = equal // 3 + (place - equal) // 2, equal // 3 + place - equal - pairs
        group = torch.where(place < equal, 0, torch.where(place < equal + 2 * pairs, paired, alone))
        shuffled = group.gather(1, _orders(len(triple), self.tokens, generator))
        return _orders(len(triple), self.values, generator).gather(1, shuffled)

    def held_out(self) -> Examples:
        """Return `validation` sets."""
        return self.draw("validation", self.validation, stream(self.name, "held out"))


def _orders(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Return random orders of 0 to length - 1, (count, length)."""
    return torch.rand(count, length, generator=generator).argsort(1)
