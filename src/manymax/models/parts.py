"""The exchangeable parts of a model: attention mechanisms and heads, by name or by a function that makes one."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from manymax.attention.dense.module import DenseAttention
from manymax.attention.module import create_attention
from manymax.heads.registry import create_head
from manymax.models.layers import Attention, Factory, Size


def make_head(head: str | Factory, in_features: int, num_classes: int) -> Any:
    """Return the head that a name or a function stands for."""
    if isinstance(head, str):
        return create_head(head, in_features=in_features, num_classes=num_classes)
    return head(in_features=in_features, num_classes=num_classes)


def attach_attention(model: nn.Module, attention: str | Factory, size: Size | None = None) -> None:
    """Give every block a mechanism of its own. Called last, so that its parameters change no other's random numbers.

    It is made for `size`; None is the sublayer's own, where sublayers differ. One that differs from layer to layer is
    told its place by `at_layer(layer, num_layers)`.
    """
    found = sublayers(model)
    for layer, sublayer in enumerate(found):
        own = size or sublayer.size
        sizes = {"head_dim": own.head_dim, "num_heads": own.num_heads}
        sublayer.mechanism = create_attention(attention, **sizes) if isinstance(attention, str) else attention(**sizes)
        place: Any = getattr(sublayer.mechanism, "at_layer", None)
        if place is not None:
            place(layer, len(found))


def sublayers(model: nn.Module) -> list[Attention]:
    """Return a model's attention sublayers, first to last."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def takes_grid(model: nn.Module) -> bool:
    """Return whether a model's mechanisms are made for images: their forward has an argument `grid`."""
    return all("grid" in inspect.signature(each.mechanism.forward).parameters for each in sublayers(model))


def keeps_state(model: nn.Module) -> bool:
    """Return whether all of a model's mechanisms can go on from a state, token by token."""
    mechanisms = [each.mechanism for each in sublayers(model)]
    return all(hasattr(mechanism, "prefill") and hasattr(mechanism, "step") for mechanism in mechanisms)


def check_causal(model: nn.Module) -> None:
    """Refuse maps over several rows in a causal model: a later row changes the weights of an earlier one."""
    for mechanism in (each.mechanism for each in sublayers(model)):
        if isinstance(mechanism, DenseAttention) and mechanism.map.kind == "coupled":
            raise ValueError(
                f"attention: {mechanism.map.name} couples the rows, so that a token would see those after it; "
                "expected another map, or causal=False"
            )
