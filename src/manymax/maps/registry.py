"""The list of maps: one line each. API, docs pages, contract tests and benchmarks read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from manymax.maps.clipped_softmax import ClippedSoftmax, clipped_softmax
from manymax.maps.entmax import AlphaEntmax, Entmax15, entmax, entmax15
from manymax.maps.normalized import Normalized, normalized
from manymax.maps.power_softmax import PowerSoftmax, power_softmax
from manymax.maps.relu import ReLU, relu
from manymax.maps.rule import Rule
from manymax.maps.sigmoid import Sigmoid, sigmoid
from manymax.maps.sinkhorn import Sinkhorn, sinkhorn
from manymax.maps.softmax import Softmax, log_softmax, logsumexp, softmax
from manymax.maps.softmax1 import Softmax1, softmax1
from manymax.maps.softplus import Softplus, softplus
from manymax.maps.sparsemax import Sparsemax, sparsemax
from manymax.maps.spherical_softmax import SphericalSoftmax, spherical_softmax
from manymax.maps.squared_relu import SquaredReLU, squared_relu
from manymax.maps.stablemax import StableMax, log_stablemax, stablemax
from manymax.maps.taylor_softmax import TaylorSoftmax, taylor_softmax
from manymax.maps.topk_softmax import TopkSoftmax, topk_softmax


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
    MapEntry(clipped_softmax, ClippedSoftmax),
    MapEntry(entmax, AlphaEntmax),
    MapEntry(entmax15, Entmax15),
    MapEntry(normalized, Normalized),
    MapEntry(power_softmax, PowerSoftmax),
    MapEntry(relu, ReLU),
    MapEntry(sigmoid, Sigmoid),
    MapEntry(sinkhorn, Sinkhorn),
    MapEntry(softmax, Softmax, (log_softmax, logsumexp)),
    MapEntry(softmax1, Softmax1),
    MapEntry(softplus, Softplus),
    MapEntry(sparsemax, Sparsemax),
    MapEntry(spherical_softmax, SphericalSoftmax),
    MapEntry(squared_relu, SquaredReLU),
    MapEntry(stablemax, StableMax, (log_stablemax,)),
    MapEntry(taylor_softmax, TaylorSoftmax),
    MapEntry(topk_softmax, TopkSoftmax),
)

MAPS = {entry.name: entry for entry in _ENTRIES}
COMPANIONS = {companion.__name__: (entry, companion) for entry in _ENTRIES for companion in entry.companions}
