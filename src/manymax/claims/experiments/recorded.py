"""Queries, keys and values of attention in a small trained language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manymax.claims.claim import Numbers, Progress
from manymax.claims.experiments.training import train
from manymax.data.text import Text
from manymax.models.gpt import GPT
from manymax.models.parts import sublayers

Heads = tuple[Tensor, Tensor, Tensor]  # query, key and value, (B, H, N, D)


def trained(seed: int, numbers: Numbers, progress: Progress) -> GPT:
    """Return a GPT that was trained on text.

    Args:
        seed: of the start and the batches.
        numbers: "depth", "width", "length" and those of `train`.
        progress: told about the loss.
    """
    torch.manual_seed(seed)
    model = GPT(256, depth=numbers["depth"], width=numbers["width"])
    train(model, Text(length=numbers["length"]), seed, numbers, progress)
    return model.eval()


@torch.no_grad()
def recorded(model: GPT, tokens: Tensor) -> list[Heads]:
    """Return what each layer's attention gets for tokens (B, N), first to last."""
    found: list[Heads] = []

    def record(mechanism: Any, inputs: Any, options: Any) -> None:
        del mechanism, options
        found.append(tuple(x.contiguous() for x in inputs))

    hooks = [each.mechanism.register_forward_pre_hook(record, with_kwargs=True) for each in sublayers(model)]
    model.features(tokens)
    for hook in hooks:
        hook.remove()
    return found
