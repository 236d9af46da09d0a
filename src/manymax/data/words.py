"""Text word by word: hundreds or tens of thousands of classes, most of them rare, as in every language."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.data.passages import Passages
from manymax.data.task import BITS_PER_WORD, Examples, Recipe, share
from manymax.data.text import splits

WORD = re.compile(r"\w+|[^\w\s]")  # a sign is a word by itself; spaces and ends of lines are none
NAME = re.compile(r"[^\W\d]\w*")
TWICE = 2  # how often a word must stand in the training text: one that stands there once teaches what unknown ones do
HELD_OUT_FILES = 1 / 10  # of the library's, by the hash of their path
LEFT_OUT = {"dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests"}  # not on every Python

Text = Sequence[str]


class WordTask(Passages):
    """Words by number: 0 is every unknown word, 1 the most frequent one. Subclasses have the field `vocabulary`."""

    metric: ClassVar = BITS_PER_WORD
    unit: ClassVar = "words"
    vocabulary: int

    @cached_property
    def _words(self) -> tuple[tuple[str, ...], Tensor, Tensor]:
        return numbered(*self.texts(), self.vocabulary)

    def texts(self) -> tuple[Text, Text]:
        """Return the words for training and for validation."""
        raise NotImplementedError

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the numbers of the words."""
        return self._words[1:]

    @property
    def known(self) -> tuple[str, ...]:
        """Return the vocabulary; the word at place r has number r + 1."""
        return self._words[0]

    @property
    def num_classes(self) -> int:
        """Return one more than the vocabulary holds, for unknown words."""
        return len(self.known) + 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the vocabulary's size."""
        return {"vocabulary": self.num_classes}


@dataclass(frozen=True)
class Words(WordTask):
    """Text, word by word: the topics of Python's documentation, or your own file or folder.

    A word is a run of letters, digits and underscores, or any other sign that is no space. Classes are the most
    frequent words that stand at least twice in the training text, in the order of their frequency; all other words are
    one class more, number 0. The documentation has 2781 of them on Python 3.11, and 4 % of its held-out words are
    unknown. Bits per word count that class as any other: they compare heads on one vocabulary, and are smaller for a
    smaller one.

    The split is that of the task `text`.

    Args:
        path: a text file or a folder of them; None is Python's documentation.
        vocabulary: known words at most.
        length: words in an example.

    Raises:
        FileNotFoundError: if there is nothing at path.
        ValueError: if a split is too short for one example.

    Source:
        The Python Software Foundation, The Python Language Reference, as in the module `pydoc_data.topics`.
    """

    name: ClassVar = "words"
    recipe: ClassVar = Recipe(batch_size=16, steps=300, learning_rate=6e-3, warmup=30, model={"depth": 2})

    path: str | None = None
    vocabulary: int = 8000
    length: int = 64

    def __post_init__(self) -> None:
        """Refuse what is missing or too short before anything is trained."""
        self._at_least(vocabulary=1)
        self._long_enough(self.path or "the documentation")

    def texts(self) -> tuple[Text, Text]:
        """Return the words of the documentation or of the user's files."""
        train, held_out = (WORD.findall(text.decode("utf-8", "replace")) for text in splits(self.path))
        return train, held_out


@dataclass(frozen=True)
class Library(WordTask):
    """Names in the source of Python's own library, one after the other: tens of thousands of classes.

    The names are all runs of letters, digits and underscores that begin with no digit, in code, comments and
    docstrings, in the order of the files; tests, idlelib and installed packages are left out. Classes are the names
    that stand at least twice in the files for training, in the order of their frequency, and number 0 for all others:
    30 346 on Python 3.11. A tenth of the files is held out, by the hash of their path; 6 % of its names are unknown.

    Large vocabularies are about rare classes, and nobody invents their frequencies: of these classes the 200 most
    frequent make up half of the text, and half of the classes stand in it at most four times. Every machine has them
    without a download. Python's versions differ by some names, so compare numbers of one Python.

    Args:
        vocabulary: known names at most.
        length: names in an example.
        validation: held-out names that are asked, evenly spread; all of them would take longer than the training.

    Raises:
        ValueError: if a number is out of range.

    Source:
        The Python Software Foundation, The Python Standard Library, as on this machine.
    """

    name: ClassVar = "library"
    recipe: ClassVar = Recipe(batch_size=16, steps=300, learning_rate=6e-3, warmup=30, model={"depth": 2})

    vocabulary: int = 50000
    length: int = 32
    validation: int = 4096

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        self._at_least(vocabulary=1, validation=1)
        self._long_enough("the library")

    @property
    def _words(self) -> tuple[tuple[str, ...], Tensor, Tensor]:
        return _library(self.vocabulary)

    def held_out(self) -> Examples:
        """Return rows of the validation text, evenly spread."""
        inputs, targets = super().held_out()
        rows = max(1, self.validation // self.length)
        chosen = slice(None) if rows >= len(inputs) else torch.linspace(0, len(inputs) - 1, rows).long()
        return inputs[chosen], targets[chosen]


@cache
def _library(vocabulary: int) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Return what `numbered` does with the library's names; reading them takes seconds."""
    root = Path(sysconfig.get_paths()["stdlib"])
    train: list[str] = []
    held_out: list[str] = []
    for path in sorted(file.relative_to(root) for file in root.rglob("*.py")):
        if not LEFT_OUT & set(path.parts):
            names = NAME.findall((root / path).read_bytes().decode("utf-8", "replace"))
            (held_out if share(path.as_posix()) < HELD_OUT_FILES else train).extend(names)
    return numbered(train, held_out, vocabulary)


def numbered(train: Text, held_out: Text, vocabulary: int) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Return the most frequent words of the training text, and both texts as numbers.

    Words of the same frequency are in the order of the alphabet, so that the numbers depend on the text alone.
    """
    counts = sorted(Counter(train).items(), key=lambda pair: (-pair[1], pair[0]))
    known = tuple(word for word, count in counts[:vocabulary] if count >= TWICE)
    place = {word: number for number, word in enumerate(known, 1)}
    first, second = (
        torch.tensor([place.get(word, 0) for word in text], dtype=torch.int32) for text in (train, held_out)
    )
    return known, first, second
