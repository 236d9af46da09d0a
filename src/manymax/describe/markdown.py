"""Docstrings as Markdown: a page for a system, an index, a reference. The docs' build turns it into HTML."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from manymax.describe.docstring import Docstring, describe
from manymax.describe.systems import Option, System, options, signature

COLUMN = 88  # characters of code that fit between the menu and the table of contents
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_CLAUSES = re.compile(r"\\q?quad")
_CELL_MATH = re.compile(r"\$(.+?)\$")


def definition(term: str, meaning: str) -> str:
    """Return an entry of a definition list."""
    return f"`{term}`\n:   " + textwrap.indent(meaning, "    ").lstrip()


def cell(text: str) -> str:
    """Return text that fits into one cell of a table: on one line, and without bars, which would end the cell."""
    line = " ".join(text.split())
    return _CELL_MATH.sub(lambda match: match[0].replace("|", r"\vert "), line).replace("|", r"\|")


def wrapped(call: str) -> str:
    """Return a call with one argument a line if it is too long for a page's column."""
    if len(call) <= COLUMN or not call.endswith(")"):
        return call
    name, _, arguments = call[:-1].partition("(")
    return "\n".join([f"{name}(", *(f"    {one}," for one in arguments.split(", ")), ")"])


def _source(text: str) -> str:
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _after_options(text: Docstring) -> Iterator[str]:
    """Yield what a docstring says after its parameters."""
    if text.returns:
        yield f"**Returns**\n\n{text.returns}"
    if text.raises:
        yield "**Raises**"
        yield from (definition(entry.name, entry.text) for entry in text.raises)
    if text.example:
        yield f"**Example**\n\n```pycon\n{text.example}\n```"
    if text.source:
        yield f"**Source**\n\n{_source(text.source)}"


def _options(title: str, found: Sequence[Option]) -> list[str]:
    return [f"**{title}**", *(definition(str(option), option.meaning) for option in found)] if found else []


def _callable(name: str, target: Callable[..., Any]) -> Iterator[str]:
    """Yield a function or class in full."""
    text = describe(target)
    yield f"```python\n{wrapped(f'mm.{name}{signature(target)}')}\n```"
    yield from (text.summary, text.body)
    yield from _options("Arguments", options(target))
    yield from _after_options(text)


def page(system: System, companions: Mapping[str, Callable[..., Any]]) -> str:
    """Return a system's page.

    Args:
        system: the system.
        companions: the functions beside it, by name.
    """
    text = system.text
    language = "bash" if system.usage.startswith("manymax ") else "python"
    parts = [f"# {system.name}", f"*{', '.join(system.facts)}*", text.summary, text.body]
    parts += [
        f"```{language}\n{wrapped(system.usage)}\n```",
        *_options("Options", system.options),
        *_after_options(text),
    ]
    parts.append(f"Written in `{system.module}`.")
    for name, target in companions.items():
        parts += [f"## {name}", *_callable(name, target)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _formula(system: System) -> str:
    """Return the clause of the first equation that gives one weight, if there is one, or else all of it."""
    if not system.text.equations:
        return ""
    whole = system.text.equations[0]
    clauses = (clause.strip(" ,\n") for clause in _CLAUSES.split(whole))
    return f"${next((clause for clause in clauses if clause.startswith('w_i')), whole)}$"


def table(systems: Sequence[System], link: Callable[[System], str]) -> str:
    """Return a table of systems: name, formula, summary; the formula is left out where it tells none apart.

    Args:
        systems: the rows.
        link: gives the address of a system's page.
    """
    rows = [(f"[{system.name}]({link(system)})", _formula(system), system.text.summary) for system in systems]
    same = len(systems) > 1 and len({row[1] for row in rows}) == 1
    columns = [0, 2] if same or not any(row[1] for row in rows) else [0, 1, 2]
    lines = [("name", "formula", "what it does"), ("---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(cell(line[column]) for column in columns)} |" for line in lines)


def reference(public: Mapping[str, Any]) -> str:
    """Return sections for public names.

    Args:
        public: functions and classes, by name.
    """
    parts = []
    for name, target in public.items():
        parts += [f"## {name}", *_callable(name, target)]
        if inspect.isclass(target):
            methods = [one for one in vars(target) if not one.startswith("_") and inspect.isfunction(vars(target)[one])]
            parts += [definition(f".{one}", describe(vars(target)[one]).summary) for one in methods]
    return "\n\n".join(filter(None, parts)) + "\n"
