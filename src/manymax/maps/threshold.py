"""Threshold maps: a cut found from the whole row decides which scores weigh anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from manymax.maps.rule import Kind, Rule


@dataclass(frozen=True)
class Threshold(Rule):
    """Entries below the row's cut weigh exactly 0."""

    kind: ClassVar[Kind] = "threshold"

    @property
    def sums_to_one(self) -> bool:
        """Return True."""
        return True
