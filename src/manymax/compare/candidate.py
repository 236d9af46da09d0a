"""A candidate: what is put in the place of softmax, with its options, as "entmax" or "entmax:alpha=1.3"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WORDS = {"true": True, "false": False, "none": None}
_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """A system's name with its options, sorted by name.

    Attributes:
        system: a name of `manymax list attentions` or `manymax list heads`.
        options: (name, value) pairs handed on to its constructor.
    """

    system: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Return the spelling that `parse` reads back; results carry it."""
        if not self.options:
            return self.system
        return self.system + ":" + ",".join(f"{key}={_spell(value)}" for key, value in self.options)


def _spell(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _value(text: str) -> Any:
    """Read a number, true, false or none; anything else is a word."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for pattern, convert in ((_WHOLE, int), (_NUMBER, float)):
        if pattern.fullmatch(text):
            return convert(text)
    return text


def parse(given: str | Mapping[str, Any], key: str = "candidates") -> Candidate:
    """Read a candidate from a word of the command line or an entry of a plan file.

    Args:
        given: "name", "name:option=value,option=value", or a table with `name` and the options.
        key: the plan's key that it stands in; tasks are spelt the same way.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> parse("entmax:alpha=1.3,temperature=2").options
        (('alpha', 1.3), ('temperature', 2))
        >>> parse({"name": "entmax", "alpha": 1.3}).label
        'entmax:alpha=1.3'
    """
    if isinstance(given, str):
        system, _, rest = given.partition(":")
        pairs = [part.partition("=") for part in rest.split(",")] if rest else []
        options = {key.strip(): _value(value.strip()) for key, sign, value in pairs if key and sign and value}
        if system and len(options) == len(pairs):
            return Candidate(system.strip(), tuple(sorted(options.items())))
    elif isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return Candidate(given["name"], tuple(sorted((key, given[key]) for key in given if key != "name")))
    raise ValueError(f"{key}: expected 'name', 'name:option=value,...' or a table with a name, got {given!r}")
