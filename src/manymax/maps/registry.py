"""The list of maps: one line each. API, docs pages, contract tests and benchmarks read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from manymax.maps.rule import Rule
from manymax.maps.sigmoid import Sigmoid, sigmoid
from manymax.maps.softmax import Softmax, softmax


@dataclass(frozen=True)
class MapEntry:
    """A map's public function, its rule, and functions beside it that return something other than weights."""

    function: Callable[..., Tensor]
    rule: type[Rule]
    companions: tuple[Callable[..., Tensor], ...] = ()

    @property
    def name(self) -> str:
        """Return the name under which users ask for the map."""
        return self.function.__name__


_ENTRIES = (
    MapEntry(sigmoid, Sigmoid),
    MapEntry(softmax, Softmax),
)

MAPS = {entry.name: entry for entry in _ENTRIES}
