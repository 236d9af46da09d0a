"""From the keys of a plan file or the command line to a plan; what is misspelt is an error that names the nearest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from manymax._names import closest
from manymax.compare import candidate, values
from manymax.compare.plan import ALIASES, DEFAULTS, Plan

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "site": ((str,), "text"),
    "candidates": ((list, tuple), "a list"),
    "text": ((str,), "text"),
    "model": ((dict,), "a table"),
    "device": ((str,), "text"),
    "dtype": ((str,), "text"),
    "lengths": ((list, tuple), "a list of numbers"),
}


def from_mapping(given: Mapping[str, Any]) -> Plan:
    """Make a plan from keys as a plan file spells them.

    Raises:
        ValueError: if a key is unknown or a value is not what the key expects.
    """
    known = [field.name for field in dataclasses.fields(Plan)]
    for key in given:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; a plan has {', '.join(known)}{closest(str(key), known)}")
    keys = {key: value for key, value in given.items() if value is not None}
    for key, (kinds, said) in _TYPES.items():
        if key in keys and not isinstance(keys[key], kinds):
            raise ValueError(f"{key}: expected {said}, got {keys[key]!r}")
    if "site" in keys:
        keys["site"] = ALIASES.get(str(keys["site"]), keys["site"])
    for key in ("budget", "timeout"):
        if key in keys:
            keys[key] = values.seconds(key, keys[key])
    if "seeds" in keys and not isinstance(keys["seeds"], (list, tuple)):
        values.whole("seeds", keys["seeds"], 1)
        keys["seeds"] = range(keys["seeds"])
    for key in ("seeds", "lengths"):
        if key in keys:
            keys[key] = tuple(keys[key])
    return Plan(**keys | _contestants(keys))


def _contestants(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return task, baseline and candidates, parsed; the baseline comes first, whether it is among them or not."""
    task = candidate.parse(keys.get("task", Plan.task), "task")
    baseline = candidate.parse(keys.get("baseline", Plan.baseline), "baseline")
    site = keys.get("site", Plan.site)
    entries = [candidate.parse(one) for one in keys.get("candidates", DEFAULTS.get(site, ()))]
    if entries.count(baseline) > 1:
        raise ValueError(f"candidates: expected each once, got {baseline.label!r} more than once")
    others = (one for one in entries if one != baseline)
    return {"task": task.label, "baseline": baseline.label, "candidates": (baseline, *others)}
