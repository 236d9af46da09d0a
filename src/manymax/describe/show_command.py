"""`manymax show NAME`: a system's formula, symbols, options and source."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterator

from manymax.describe.plain import plain, plain_text
from manymax.describe.systems import Option, System, every_system

SUMMARY = "show a system's formula, options and source"
WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax show`."""
    parser.add_argument("name", help="a name from `manymax list`")


def find(name: str) -> list[System]:
    """Return the systems of that name (a name may stand in two rooms), or of which it is a companion.

    Raises:
        ValueError: if there is none; the message has the closest names.
    """
    everything = every_system()
    found = [system for system in everything if name == system.name or name in system.companions]
    if found:
        return found
    known = sorted({known for system in everything for known in (system.name, *system.companions)})
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `manymax list maps`"
    raise ValueError(f"nothing here is named {name!r}; {hint}")


def _paragraphs(body: str) -> Iterator[str]:
    """Yield the body as terminal text: equations on lines of their own, prose wrapped."""
    for block in filter(None, re.split(r"\n\s*\n", body)):
        if block.startswith("$$"):
            yield "\n".join(f"    {plain(equation)}" for equation in re.findall(r"\$\$(.+?)\$\$", block, re.DOTALL))
        elif block.startswith("- "):
            yield "\n".join(
                textwrap.fill(plain_text(line), WIDTH, subsequent_indent="  ") for line in block.splitlines()
            )
        else:
            yield textwrap.fill(plain_text(block), WIDTH)


def _option_lines(options: tuple[Option, ...]) -> Iterator[str]:
    """Yield a paragraph for each option: name and default, and the meaning set to their right."""
    rows = [(one.name, one.default or _undecided(one.name), plain_text(one.meaning)) for one in options]
    name_width, default_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, default, meaning in rows:
        start = f"    {name:{name_width}}  {default:{default_width}}  "
        yield textwrap.fill(meaning, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))


def _undecided(name: str) -> str:
    """Return what stands in the place of a default: nothing for **options, which may be left out."""
    return "" if name.startswith("*") else "(required)"


def show(system: System) -> str:
    """Return everything that the system's docstring says, as text of about 100 columns."""
    text = system.text
    first = textwrap.fill(plain_text(text.summary), WIDTH)
    blocks = [f"{system.name}  ({', '.join(system.facts)})\n{first}", *_paragraphs(text.body)]
    if system.options:
        blocks.append("\n".join(["Options", *_option_lines(system.options)]))
    blocks.append(f"Use      {system.usage}\nCode     {system.module}")
    if system.companions:
        blocks[-1] += f"\nBeside   {', '.join(system.companions)}"
    if text.source:
        blocks[-1] += "\n" + textwrap.fill(text.source, WIDTH, initial_indent="Source   ", subsequent_indent=" " * 9)
    return "\n\n".join(blocks)


def run(args: argparse.Namespace) -> int:
    """Print every system of that name."""
    print("\n\n\n".join(show(system) for system in find(args.name)))
    return 0
