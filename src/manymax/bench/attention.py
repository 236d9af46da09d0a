"""Dense attention beside torch's fused function, the formula in plain torch, FlexAttention and the entmax package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax._extras import require
from manymax.attention.dense.api import attention, choice
from manymax.bench.contender import Contender
from manymax.bench.maps import make_map

CHECKED_QUERIES = 16
Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AttentionProblem:
    """Queries, keys and values, and the float64 formula.

    Attributes:
        batch: B.
        heads: H.
        length: tokens, as many keys as queries.
        head_dim: D, of values too.
        dtype: of all three.
        device: where they are.
        is_causal: whether a query sees no later key.
        backward: whether the gradients are part of the work.
    """

    batch: int
    heads: int
    length: int
    head_dim: int
    dtype: torch.dtype
    device: str
    is_causal: bool = False
    backward: bool = False

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return normal queries, keys and values."""
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (3, self.batch, self.heads, self.length, self.head_dim)
        return torch.randn(shape, generator=generator, device=self.device).to(self.dtype).unbind()

    @property
    def work(self) -> float:
        """Return the operations of the matrix products: 2 forwards, 5 backwards, over the pairs that are seen."""
        pairs = self.length * (self.length + 1) / 2 if self.is_causal else self.length**2
        products = 7 if self.backward else 2
        return 2.0 * products * self.batch * self.heads * pairs * self.head_dim

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest relative error of the last head's last queries, which see the most keys."""
        module = make_map(label)
        queries = self.length if module.kind == "coupled" else CHECKED_QUERIES
        query, key, value = (one[-1:, -1:].double() for one in self.inputs)
        exact = attention(
            query[..., -queries:, :],
            key,
            value,
            is_causal=self.is_causal,
            causal_align="bottom-right",
            map=module,
            backend="reference",
        )
        return float((out[-1:, -1:, -queries:] - exact).abs().max() / exact.abs().max())


def _formula(weigh: Callable[[Tensor], Tensor], problem: AttentionProblem) -> Function:
    """Return attention as one writes it in plain torch, all weights in memory at once."""
    hidden = torch.ones(problem.length, problem.length, dtype=torch.bool, device=problem.device).triu(1)

    def formula(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.mT * problem.head_dim**-0.5
        if problem.is_causal:
            scores = scores.masked_fill(hidden, -torch.inf)
        return weigh(scores) @ value

    return formula


def _sdpa(maps: Sequence[str], problem: AttentionProblem) -> dict[str, Function]:
    """Return torch's fused attention."""

    def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=problem.is_causal)

    return {"softmax": sdpa} if "softmax" in maps else {}


def _eager(maps: Sequence[str], problem: AttentionProblem) -> dict[str, Function]:
    """Return the formula for maps of a line or two, and for sigmoid where every query sees all keys."""
    weighers: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": lambda x: torch.softmax(x, -1),
        "softplus": lambda x: F.normalize(F.softplus(x), p=1, dim=-1),
        "stablemax": lambda x: F.normalize(torch.where(x < 0, 1 / (1 - x), 1 + x), p=1, dim=-1),
    }
    known = {name: _formula(weigh, problem) for name, weigh in weighers.items()}
    if not problem.is_causal:
        known["sigmoid"] = _formula(lambda x: torch.sigmoid(x - math.log(problem.length)), problem)
    return {name: known[name] for name in maps if name in known}


def _flex(maps: Sequence[str], problem: AttentionProblem) -> dict[str, Function]:
    """Return compiled FlexAttention; compiling takes seconds, before the clock starts."""
    if "softmax" not in maps:
        return {}
    flex = require("torch.nn.attention.flex_attention", "dev")
    compiled: Callable[..., Tensor] = torch.compile(flex.flex_attention, fullgraph=True)
    blocks = None
    if problem.is_causal:
        n = problem.length
        blocks = flex.create_block_mask(
            lambda _b, _h, query, key: query >= key, None, None, n, n, device=problem.device
        )

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return compiled(query, key, value, block_mask=blocks)

    return {"softmax": run}


def _entmax(maps: Sequence[str], problem: AttentionProblem) -> dict[str, Function]:
    """Return the formula with the entmax package's functions."""
    package = require("entmax", "dev")
    known: dict[str, Function] = {
        "sparsemax": _formula(package.sparsemax, problem),
        "entmax15": _formula(package.entmax15, problem),
    }
    return {name: known[name] for name in maps if name in known}


PEERS = {"sdpa": _sdpa, "eager": _eager, "flex": _flex, "entmax": _entmax}


def contenders(
    maps: Sequence[str], peers: Sequence[str], problem: AttentionProblem, backend: str = "auto"
) -> list[Contender]:
    """Return torch's fused attention, which is the baseline, and each map followed by its peers.

    Args:
        maps: labels of maps.
        peers: names from `PEERS`; each must be installed.
        problem: what they will be called with.
        backend: which backend of `mm.attention` to ask for.
    """
    offered = {peer: PEERS[peer](maps, problem) for peer in peers}
    found = [Contender("sdpa", "softmax", _sdpa(["softmax"], problem)["softmax"])]
    for label in maps:
        chosen: dict[str, Any] = {"is_causal": problem.is_causal, "map": make_map(label), "backend": backend}
        served = choice(*problem.inputs, **chosen).name or ""
        found.append(Contender("manymax", label, partial(attention, **chosen), served))
        found += [Contender(peer, label, offered[peer][label]) for peer in peers if label in offered[peer]]
    return list({contender.key: contender for contender in found}.values())
