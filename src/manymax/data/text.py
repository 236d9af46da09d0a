"""Bytes of text: Python's documentation, or anybody's files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.data.passages import Passages
from manymax.data.task import BITS_PER_BYTE, Recipe, share

HELD_OUT_TOPICS = 1 / 8  # of the topics by the hash of their name: 13 of 79, 8 % of the bytes, on Python 3.10 to 3.13
HELD_OUT_BYTES = 1 / 10  # of a user's files
RUN = 12  # words in a row that training must not share with validation


@dataclass(frozen=True)
class Text(Passages):
    """Text, byte by byte: the topics of Python's documentation, or your own file or folder.

    The topics are the prose that Python's `help()` shows, about 450 kB on every Python. Whole topics are held out, by a
    hash of their name, so the split is the same on every Python that has the same topics. Topics quote each other
    (`compound` holds all of `if`, `for` and `with`): training loses every line that shares 12 successive words with a
    held-out topic.

    A folder is split by file: files in the order of their name's hash are held out up to a tenth of the bytes, the
    smallest if none fits. Files with a NUL byte, files and folders whose names begin with a dot, and copies of other
    files are left out. A single file, or a folder with one, is cut: its last tenth is for validation.

    Args:
        path: a text file or a folder of them; None is Python's documentation.
        length: tokens in an example.

    Raises:
        FileNotFoundError: if there is nothing at path.
        ValueError: if a split is too short for one example.

    Source:
        The Python Software Foundation, The Python Language Reference, as in the module `pydoc_data.topics`.
    """

    name: ClassVar = "text"
    unit: ClassVar = "bytes"
    metric: ClassVar = BITS_PER_BYTE
    recipe: ClassVar = Recipe(batch_size=8, steps=300, learning_rate=6e-3, warmup=30, model={"depth": 2})

    path: str | None = None
    length: int = 128

    def __post_init__(self) -> None:
        """Refuse what is missing or too short before anything is trained."""
        self._long_enough(self.path or "the documentation")

    @property
    def num_classes(self) -> int:
        """Return 256, one class a byte."""
        return 256

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the vocabulary."""
        return {"vocabulary": self.num_classes}

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the bytes."""
        train, held_out = splits(self.path)
        return _tensor(train), _tensor(held_out)


def splits(path: str | None) -> tuple[bytes, bytes]:
    """Return the bytes of a file or a folder for training and for validation; None is Python's documentation.

    Raises:
        FileNotFoundError: if there is nothing at path.
    """
    if path is None:
        return topics()
    if not Path(path).exists():
        raise FileNotFoundError(f"path: no file or folder {path}")
    return _files(Path(path))


def topics() -> tuple[bytes, bytes]:
    """Return Python's documentation for training and for validation."""
    text: dict[str, str] = import_module("pydoc_data.topics").topics
    held_out = [text[name] for name in sorted(text) if share(name) < HELD_OUT_TOPICS]
    shared = {run for topic in held_out for run, _ in _runs(topic)}
    train = [_without(text[name], shared) for name in sorted(text) if share(name) >= HELD_OUT_TOPICS]
    return "\n".join(train).encode(), "\n".join(held_out).encode()


def _runs(text: str) -> Iterable[tuple[tuple[str, ...], tuple[int, int]]]:
    """Yield every run of words with the indices of the lines of its first and last word."""
    words = [(word, row) for row, line in enumerate(text.splitlines()) for word in re.findall(r"\S+", line)]
    for i in range(len(words) - RUN + 1):
        run = words[i : i + RUN]
        yield tuple(word for word, _ in run), (run[0][1], run[-1][1])


def _without(text: str, shared: set[tuple[str, ...]]) -> str:
    """Return the text without the lines that a shared run touches."""
    dropped = {row for run, (first, last) in _runs(text) if run in shared for row in range(first, last + 1)}
    lines = text.splitlines(keepends=True)
    return "".join(line for row, line in enumerate(lines) if row not in dropped)


def _files(path: Path) -> tuple[bytes, bytes]:
    """Return a user's text for training and for validation."""
    contents = _contents(path)
    total = sum(map(len, contents.values()))
    if len(contents) < 2:
        text = b"".join(contents.values())
        cut = total - round(total * HELD_OUT_BYTES)
        return text[:cut], text[cut:]
    held_out: list[str] = []
    budget = total * HELD_OUT_BYTES
    for name in sorted(contents, key=share):
        if len(contents[name]) <= budget:
            held_out.append(name)
            budget -= len(contents[name])
    held_out = held_out or [min(contents, key=lambda name: (len(contents[name]), name))]
    train = [contents[name] for name in sorted(contents) if name not in held_out]
    return b"\n".join(train), b"\n".join(contents[name] for name in sorted(held_out))


def _contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of a folder's text files by relative path, copies once."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    first: dict[bytes, str] = {}
    for name in sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()):
        if not any(part.startswith(".") for part in name.parts):
            first.setdefault((path / name).read_bytes(), name.as_posix())
    return {name: content for content, name in first.items() if content and b"\0" not in content}


def _tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)
