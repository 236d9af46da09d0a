"""Text as the pieces of words that BERT reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

LONGEST = 100  # letters of a word; longer ones are unknown
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
INSIDE = "##"  # before a piece that is not a word's first
ASCII_SIGNS = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Cuts text at spaces, signs and ideographs, and each word greedily into the longest pieces of a vocabulary.

    On 10 632 lines of Python's documentation the pieces are those of Hugging Face's tokenizer; it differs on letters
    that are younger than its tables of Unicode.

    Args:
        vocabulary: the pieces, one a number; those inside words begin with "##".
        lower: whether letters are made small and lose their accents first.

    Raises:
        ValueError: if the vocabulary lacks one of the four pieces in brackets.

    Example:
        >>> from manymax.models.wordpiece import WordPiece
        >>> pieces = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "soft", "##max", "!"])
        >>> pieces(["Softmax!", "hardmax"], limit=5)[0]
        tensor([[2, 4, 5, 6, 3],
                [2, 1, 3, 0, 0]])

    Source:
        Wu et al., 2016, Google's Neural Machine Translation System, arXiv:1609.08144; as in Devlin et al., 2018, BERT:
        Pre-training of Deep Bidirectional Transformers for Language Understanding, arXiv:1810.04805.
    """

    def __init__(self, vocabulary: Sequence[str], *, lower: bool = True) -> None:
        self.numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self.lower = lower
        missing = [piece for piece in (PAD, UNKNOWN, START, END) if piece not in self.numbers]
        if missing:
            raise ValueError(f"vocabulary: expected it to hold {', '.join(missing)}, got {len(vocabulary)} others")

    @classmethod
    def of(cls, path: str | Path, *, lower: bool = True) -> WordPiece:
        """Read a vocabulary, a piece a line, as in `vocab.txt`."""
        return cls(Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n"), lower=lower)

    def __call__(self, texts: Sequence[str], *, limit: int) -> tuple[Tensor, Tensor]:
        """Return numbers (texts, longest), at most `limit` long with start and end, and where there is a piece."""
        if limit < 2:
            raise ValueError(f"limit: expected at least 2, for start and end, got {limit}")
        rows = [[START, *self.pieces(text)[: limit - 2], END] for text in texts]
        longest = max(map(len, rows), default=0)
        filled = [[self.numbers[piece] for piece in row + [PAD] * (longest - len(row))] for row in rows]
        numbers = torch.tensor(filled, dtype=torch.int64).view(len(rows), longest)
        return numbers, torch.arange(longest) < torch.tensor([len(row) for row in rows], dtype=torch.int64)[:, None]

    def pieces(self, text: str) -> list[str]:
        """Return a text's pieces."""
        return [piece for word in self._words(text) for piece in self._cut(word)]

    def _words(self, text: str) -> list[str]:
        if self.lower:
            text = "".join(letter for letter in unicodedata.normalize("NFD", text) if _kind(letter) != "Mn")
            text = "".join(letter.lower() for letter in text)  # one by one: Σ is σ, at a word's end, too
        return "".join(map(_spaced, text)).split(" ")

    def _cut(self, word: str) -> Iterator[str]:
        """Yield the longest piece that the word begins with, and so on; a word with an unknown rest is unknown."""
        ends = [0]
        while ends[-1] < len(word) <= LONGEST:
            start = ends[-1]
            prefix = INSIDE if start else ""
            fits = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self.numbers)
            end = next(fits, None)
            if end is None:
                break
            ends.append(end)
        if ends[-1] < len(word):
            yield UNKNOWN
        else:
            yield from ((INSIDE if start else "") + word[start:end] for start, end in pairwise(ends))


_kind = cache(unicodedata.category)


@cache
def _spaced(letter: str) -> str:
    """Return a letter as it stands in a text whose words are those between spaces; "" for what is dropped."""
    if letter in "\t\n\r" or _kind(letter).startswith("Z"):
        return " "
    if letter in "\0\N{REPLACEMENT CHARACTER}" or _kind(letter) in {"Cc", "Cf", "Co"}:
        return ""
    apart = letter in ASCII_SIGNS or _kind(letter).startswith("P")
    return f" {letter} " if apart or any(low <= ord(letter) <= high for low, high in IDEOGRAPHS) else letter
