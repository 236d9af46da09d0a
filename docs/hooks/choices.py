"""The table of every mechanism's choices, from the classes: none is written by hand."""

from __future__ import annotations

import dataclasses

from mkdocs.exceptions import PluginError

from manymax.attention.mechanism import Choices
from manymax.attention.registry import MECHANISMS, mechanism_choices, mechanism_class

MARK = "<!-- choices: "
HEADS = ["Mechanism", *(field.name.capitalize() for field in dataclasses.fields(Choices))]


def table(family: str) -> str:
    """Return a Markdown table of a family's mechanisms, one row for each name.

    Raises:
        PluginError: if there is no such family.
    """
    rows = [
        [f"[{name}](systems/attentions/{name}.md)", *dataclasses.astuple(mechanism_choices(name))]
        for name in sorted(MECHANISMS)
        if mechanism_class(name).family == family
    ]
    if not rows:
        raise PluginError(f"choices: there is no family {family!r} of mechanisms")
    lines = [HEADS, ["---"] * len(HEADS), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each mark by its family's table."""
    while MARK in markdown:
        before, _, rest = markdown.partition(MARK)
        family, _, after = rest.partition(" -->")
        markdown = f"{before}{table(family)}{after}"
    return markdown
