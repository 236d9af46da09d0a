"""Checks of single values, each naming the key, what was expected, and what was there."""

from __future__ import annotations

import re
from typing import Any

from manymax._names import closest

_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|sec|s)\s*")


def one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones."""
    if value not in known:
        raise ValueError(f"{key}: expected one of {', '.join(known)}, got {value!r}{closest(value, known)}")


def whole(key: str, value: Any, low: int) -> None:
    """Refuse what is neither None nor a whole number from `low` up."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
        raise ValueError(f"{key}: expected a whole number from {low} up, got {value!r}")


def positive(key: str, value: Any) -> None:
    """Refuse what is neither None nor a number above 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < float("inf")):
        raise ValueError(f"{key}: expected a number above 0, got {value!r}")


def seconds(key: str, given: str | float) -> float:
    """Read a duration: a number of seconds, or "90s", "3min", "1h30min".

    Raises:
        ValueError: if it is no duration above 0.
    """
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        total = float(given)
    else:
        parts = _DURATION.findall(str(given))
        whole = _DURATION.sub("", str(given)).strip() == ""
        total = sum(float(number) * _UNITS[unit] for number, unit in parts) if whole else 0.0
    if not 0 < total < float("inf"):
        raise ValueError(f"{key}: expected a duration such as '90s', '3min' or '1h30min', got {given!r}")
    return total
