"""One linear system for all: exactness of its forms, and recall over the state's size (Sieber et al., 2024)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.linear.parts import HeadLinear, ShortConvolution
from manymax.attention.module import create_attention
from manymax.attention.recurrent.dynamical_system import (
    DynamicalSystem,
    from_gates,
    from_mechanism,
    from_selective,
    from_softmax,
)
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.swap import learn
from manymax.claims.experiments.training import part
from manymax.data.recall import Recall
from manymax.models.evaluate import evaluate

READ = ("linear", "retention", "gated-linear", "mamba2", "gated-delta", "dsf")
CONVOLUTION = 4  # tokens
OPTIONS: dict[str, dict[str, Any]] = {"linear": {"conv_size": 0}, "dsf": {"conv_size": 0}, "mamba2": {"conv_size": 0}}


class Expanded(nn.Module):
    """A mechanism whose queries and keys are mapped to n numbers, after a convolution of queries, keys and values."""

    def __init__(self, name: str, states: int, head_dim: int, num_heads: int) -> None:
        super().__init__()
        self.conv = ShortConvolution(num_heads, 3 * head_dim, CONVOLUTION)
        self.query, self.key = (HeadLinear(num_heads, head_dim, states) for _ in range(2))
        options = OPTIONS.get(name, {})
        sizes = {"value_dim": head_dim} if options else {}
        self.mechanism = create_attention(name, head_dim=states, num_heads=num_heads, **options, **sizes)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Return the mechanism's outputs."""
        mixed, _ = self.conv(torch.cat([query, key, value], -1), None)
        query, key, value = mixed.chunk(3, -1)
        out: Tensor = self.mechanism(self.query(query), self.key(key), value, **options)
        return out


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure exactness, then recall over the state's size."""
    progress(0.0, "exactness")
    metrics = form_errors(seed, numbers["error_length"])
    small = numbers["states"][0]
    plan = [("softmax", 64), ("mamba2", small)]
    plan += [(name, states) for states in numbers["states"] for name in ("linear", "dsf")]
    task = Recall(pairs=numbers["pairs"], length=numbers["length"])
    found = {}
    for index, (name, states) in enumerate(plan):
        make = partial(Expanded, name, states)
        model = learn(task, make, seed, numbers, part(progress, f"{name}, n = {states}", index, len(plan)))
        found[name, states] = evaluate(model, task)
    linear = [found["linear", states] for states in numbers["states"]]
    gaps = [found["softmax", 64] - share for share in linear]
    return metrics | {
        "smallest_step": min(then - before for before, then in pairwise(linear)),
        "gap_left": gaps[-1] - 0.5 * gaps[0],
        "normalised_gain": min(found["dsf", states] - found["linear", states] for states in numbers["states"]),
        "softmax_recall": found["softmax", 64],
        "linear_recall_small": linear[0],
        "linear_recall_large": linear[-1],
        "normalised_recall_small": found["dsf", small],
        "mamba2_recall_small": found["mamba2", small],
    }


@torch.no_grad()
def form_errors(seed: int, length: int) -> Metrics:
    """Return the largest errors of scan against matrix form, and of the scan against the mechanism."""
    torch.manual_seed(seed)
    query, key, value = torch.randn(3, 1, 2, length, 16).unbind()
    systems: list[DynamicalSystem] = []
    off = []
    for name in READ:
        mechanism = create_attention(name, head_dim=16, num_heads=2)
        systems.append(from_mechanism(mechanism, query, key, value))
        streams = mechanism.streams(*mechanism._convolve(query, key, value, None, None)[:3], _places(length))  # noqa: SLF001
        out = mechanism.finish(systems[-1].scan(), streams, value)
        expected = mechanism(query, key, value, is_causal=True)
        off.append(float((out - expected).abs().max() / expected.abs().max()))
    step, gates = torch.rand(1, 2, length, 16), torch.rand(3, 1, 2, length, 16)
    systems.append(from_selective(value, step, torch.rand(2, 8, 16), query[..., :8], key[..., :8]))
    systems.append(from_gates(value, *gates.unbind()))
    systems.append(from_softmax(0.5 * query, 0.5 * key, value, 2))
    errors = []
    for system in systems:
        scanned = system.scan()
        errors.append(float((scanned - system.convolve()).abs().max() / scanned.abs().max().clamp(min=1)))
    return {"form_error": max(errors), "mechanism_error": max(off)}


def _places(length: int) -> Tensor:
    return torch.arange(length)[None]
