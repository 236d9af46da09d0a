"""The functions of Python's own library: what their docstrings say and which words their code uses."""

from __future__ import annotations

import ast
import re
import sysconfig
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manymax.data.task import share

HELD_OUT = 1 / 5  # of the modules, by the hash of their name


class Function(NamedTuple):
    """A function with words: of its docstring's first paragraph, of its name and arguments, and of its body."""

    module: str
    doc: tuple[str, ...]
    name: tuple[str, ...]
    body: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Return whether the function's module is for validation."""
        return share(self.module) < HELD_OUT


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text or an identifier in lower case: snake_case and CamelCase are several."""
    return tuple(word.lower() for word in re.findall(r"[A-Z]?[a-z]{2,}|[A-Z]{2,}", text))


@cache
def functions() -> tuple[Function, ...]:
    """Return all functions with a docstring in the library's own modules, by module and place."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if not isinstance(node, ast.FunctionDef) or text is None:
                continue
            arguments = [argument.arg for argument in node.args.args if argument.arg != "self"]
            inside = [each for child in node.body for each in ast.walk(child)]
            names = [each.id for each in inside if isinstance(each, ast.Name)]
            names += [each.attr for each in inside if isinstance(each, ast.Attribute) and each.attr != "self"]
            function = Function(
                path.stem,
                words(text.split("\n\n")[0]),
                words(" ".join([node.name, *arguments])),
                tuple(dict.fromkeys(word for name in names for word in words(name) if word != "self")),
            )
            if len(function.doc) > 2 and function.name and len(function.body) > 2:
                found.append(function)
    return tuple(found)


def pieces(texts: Sequence[Sequence[str]], buckets: int, limit: int) -> Tensor:
    """Return the three-letter pieces of words as numbers from 1 to `buckets`, (texts, limit); 0 fills up."""
    rows = torch.zeros(len(texts), limit, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        marked = [f"<{word}>" for word in text]
        found = [zlib.crc32(word[i : i + 3].encode()) % buckets + 1 for word in marked for i in range(len(word) - 2)]
        kept = torch.tensor(found[:limit], dtype=torch.int64)
        row[: len(kept)] = kept
    return rows


class TextEncoder(nn.Module):
    """The mean of a text's pieces and a network of one hidden layer."""

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(buckets + 1, width, mode="mean", padding_idx=0)
        self.network = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, texts: Tensor) -> Tensor:
        """Return embeddings (n, width) of pieces (n, limit)."""
        mean = self.pieces(texts)
        embedded: Tensor = mean + self.network(mean)
        return embedded
