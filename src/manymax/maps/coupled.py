"""Coupled maps: a weight needs every score of its row, or of several rows, at once and at full precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from manymax.maps.rule import Kind, Rule


@dataclass(frozen=True)
class Coupled(Rule):
    """No part of a row can be weighed before the rest is known."""

    kind: ClassVar[Kind] = "coupled"
