"""Maps alone: scores (rows, length) to weights, beside torch's own functions and the entmax package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax._extras import require
from manymax.bench.contender import Contender
from manymax.compare import candidate
from manymax.maps.module import Map, create_map

CHECKED_ROWS = 16
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MapProblem:
    """Scores and the float64 formula.

    Attributes:
        rows: how many rows.
        length: scores in a row.
        dtype: of the scores.
        device: where they are.
        backward: whether the gradient is part of the work.
    """

    rows: int
    length: int
    dtype: torch.dtype
    device: str
    backward: bool = False

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return normal scores."""
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(self.rows, self.length, generator=generator, device=self.device)
        return (x.to(self.dtype),)

    @property
    def work(self) -> float:
        """Return the bytes moved at least: scores in, weights out; backwards weights and gradient in, gradient out."""
        return (5.0 if self.backward else 2.0) * self.rows * self.length * self.dtype.itemsize

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest relative error of the last rows."""
        (x,) = self.inputs
        rows = self.rows if make_map(label).kind == "coupled" else CHECKED_ROWS
        exact = make_map(label)(x[-rows:].double())
        return float((out[-rows:] - exact).abs().max() / exact.abs().max())


def make_map(label: str) -> Map:
    """Return the map, or the function beside one, of "name" or "name:option=value,..."."""
    chosen = candidate.parse(label)
    return create_map(chosen.system, **dict(chosen.options))


def _torch(maps: Sequence[str], length: int) -> dict[str, Function]:
    """Return plain torch for the maps that are one or two of its functions."""
    known: dict[str, Function] = {
        "softmax": lambda x: torch.softmax(x, -1),
        "log_softmax": lambda x: torch.log_softmax(x, -1),
        "logsumexp": lambda x: torch.logsumexp(x, -1),
        "sigmoid": lambda x: torch.sigmoid(x - math.log(length)),
        "relu": lambda x: torch.relu(x) / length,
        "softplus": lambda x: F.normalize(F.softplus(x), p=1, dim=-1),
    }
    return {name: known[name] for name in maps if name in known}


def _entmax(maps: Sequence[str], length: int) -> dict[str, Function]:
    """Return the entmax package's functions for the maps that it has."""
    del length
    package = require("entmax", "dev")
    known: dict[str, Function] = {"sparsemax": package.sparsemax, "entmax15": package.entmax15}
    return {name: known[name] for name in maps if name in known}


PEERS = {"torch": _torch, "entmax": _entmax}


def contenders(maps: Sequence[str], peers: Sequence[str], length: int) -> list[Contender]:
    """Return torch's softmax, which is the baseline, and each map followed by its peers.

    Args:
        maps: labels of maps.
        peers: names from `PEERS`; each must be installed.
        length: scores in a row, which some formulas contain.
    """
    offered = {peer: PEERS[peer](maps, length) for peer in peers}
    found = [Contender("torch", "softmax", _torch(["softmax"], length)["softmax"])]
    for label in maps:
        found.append(Contender("manymax", label, make_map(label)))
        found += [Contender(peer, label, offered[peer][label]) for peer in peers if label in offered[peer]]
    return list({contender.key: contender for contender in found}.values())
