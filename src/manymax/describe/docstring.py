"""A public docstring as data, so that the terminal, the docs pages and the tests read the same text."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example", "Source")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_ENTRY = re.compile(r"^(?P<name>\*{0,2}\w+(?:, \w+)*)(?: \([^)]*\))?: (?P<text>.*)$")
_EQUATION = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One line of Args or Raises: a name and what is said about it."""

    name: str
    text: str


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring; a part that is missing is empty.

    Attributes:
        summary: the first line.
        body: Markdown between the summary and the first section, equations included.
        equations: the LaTeX of each `$$` block of the body.
        arguments: the entries of Args (of Attributes for a dataclass).
        returns: what comes back.
        raises: the entries of Raises.
        example: doctest lines.
        source: authors, year, title, identifier.
    """

    summary: str
    body: str = ""
    equations: tuple[str, ...] = ()
    arguments: tuple[Entry, ...] = ()
    returns: str = ""
    raises: tuple[Entry, ...] = ()
    example: str = ""
    source: str = ""


def _entries(text: str) -> tuple[Entry, ...]:
    """Split "name: text" lines; a line that is indented continues the one before."""
    found: list[Entry] = []
    for line in filter(str.strip, text.splitlines()):
        match = None if line.startswith(" ") else _ENTRY.match(line)
        if match:
            found.append(Entry(match["name"], match["text"]))
        elif found:
            found[-1] = Entry(found[-1].name, f"{found[-1].text} {line.strip()}")
        else:
            raise ValueError(f"docstring: expected 'name: text', got {line!r}")
    return tuple(found)


def parse(text: str) -> Docstring:
    """Parse a google-style docstring.

    Args:
        text: the docstring, indented as in the source or already cleaned.

    Returns:
        Its parts.

    Raises:
        ValueError: if Args or Raises start with a line that is not "name: text".
    """
    summary, _, rest = inspect.cleandoc(text).partition("\n")
    parts: dict[str, list[str]] = {"": []}
    current = parts[""]
    for line in rest.splitlines():
        heading = _HEADING.match(line)
        if heading:
            current = parts.setdefault(heading[1], [])
        else:
            current.append(line)
    section = {name: inspect.cleandoc("\n" + "\n".join(lines)) for name, lines in parts.items()}
    return Docstring(
        summary=summary.strip(),
        body=section[""],
        equations=tuple(match.strip() for match in _EQUATION.findall(section[""])),
        arguments=_entries(section.get("Args", section.get("Attributes", ""))),
        returns=section.get("Returns", ""),
        raises=_entries(section.get("Raises", "")),
        example=section.get("Example", ""),
        source=section.get("Source", ""),
    )


def describe(target: object) -> Docstring:
    """Return the parsed docstring of a function or class; empty parts where it has none."""
    return parse(inspect.getdoc(target) or "")
