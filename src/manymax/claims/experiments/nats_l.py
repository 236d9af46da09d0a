"""Recall with softmax, a gated delta state, both in turn, and a choice for each chunk (Deng et al., 2026)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import nn

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.recorded import recorded
from manymax.claims.experiments.swap import learn
from manymax.claims.experiments.training import part
from manymax.data.recall import Recall
from manymax.models.evaluate import evaluate
from manymax.models.gpt import GPT
from manymax.models.parts import sublayers


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train all four and count what is kept."""
    task = Recall(
        vocabulary=numbers["vocabulary"],
        pairs=numbers["pairs"],
        length=numbers["length"],
        validation=numbers["tested"],
    )
    makes: dict[str, Any] = {
        "softmax": "softmax",
        "delta": "gated-delta",
        "interleaved": in_turn("gated-delta", "softmax"),
        "hybrid": partial(create_attention, "nats-l", block_size=numbers["block_size"]),
    }
    found, rates = {}, numbers["learning_rates"]
    model: GPT | None = None
    for index, (name, make) in enumerate(makes.items()):
        found[name] = -1.0
        for number, rate in enumerate(rates):
            tell = part(progress, f"{name}, {rate}", index * len(rates) + number, len(makes) * len(rates))
            trained = learn(task, make, seed, {**numbers, "learning_rate": rate}, tell)
            share = evaluate(trained, task)
            if share > found[name]:
                found[name], model = share, trained
    assert model is not None
    return {
        "recall_ratio": found["hybrid"] / max(found["softmax"], 1e-9),
        "kept_share": kept_share(model, task),
        "gain_over_delta": found["hybrid"] - found["delta"],
        **{f"{name}_recall": share for name, share in found.items()},
    }


def in_turn(*names: str) -> Callable[..., nn.Module]:
    """Return a function that makes one mechanism after the other, layer by layer."""
    order = cycle(names)

    def make(**sizes: int) -> nn.Module:
        made: nn.Module = create_attention(next(order), **sizes)
        return made

    return make


@torch.no_grad()
def kept_share(model: GPT, task: Recall) -> float:
    """Return the share of tokens in complete chunks that a head keeps, over layers and heads."""
    inputs, _ = task.held_out()
    kept = total = 0
    for sublayer, tokens in zip(sublayers(model), recorded(model, inputs), strict=True):
        mechanism: Any = sublayer.mechanism
        _, state = mechanism.prefill(*tokens)
        kept += int(state.keep.sum())
        total += int((state.length - state.count).sum()) * model.size.num_heads
    return kept / total
