"""What attention does inside a model: scores and weights of every layer, and three numbers that sum them up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.dense.api import attention
from manymax.attention.dense.module import DenseAttention
from manymax.attention.weights import row_entropy
from manymax.models.parts import sublayers


@dataclass(frozen=True)
class Layer:
    """What one attention sublayer got and made of it.

    Attributes:
        query: (B, H, N, D), after rotation.
        key: (B, Hk, N, D), after rotation.
        scores: (B, H, N, N) in float32 or better, query times key times the scale, before a softcap; -inf where a token
            must not look.
        weights: (B, H, N, N), or None for a mechanism that has none, such as a linear one.
    """

    query: Tensor
    key: Tensor
    scores: Tensor
    weights: Tensor | None


@torch.no_grad()
def probe(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """Run a model on a batch and return what each of its attention sublayers did, first to last.

    Args:
        model: a model whose attention is `manymax.models.layers.Attention`.
        inputs: a batch of the model's inputs.
    """
    with _recording(model) as calls:
        model.features(inputs)  # type: ignore[operator]
    return [_layer(*call) for call in calls]


def statistics(layers: list[Layer]) -> dict[str, float | None]:
    """Return the layers' largest |score|, and their weights' mean entropy and mean share on the first token.

    A row's weights are taken as |w| over the row's sum of |w|, since not every map's rows sum to 1; a row without
    weight does not count. The entropy is in nats. Without weights the last two are None.
    """
    largest = float(torch.stack([layer.scores[layer.scores != -torch.inf].abs().max() for layer in layers]).max())
    weights = [layer.weights for layer in layers if layer.weights is not None]
    rows = [w.flatten(0, -2)[w.abs().sum(-1).flatten() != 0] for w in weights]
    if not any(map(len, rows)):
        return {"largest_score": largest, "entropy": None, "first_token_share": None}
    return {
        "largest_score": largest,
        "entropy": float(torch.cat([row_entropy(each) for each in rows]).mean()),
        "first_token_share": float(torch.cat([each[:, 0].abs() / each.abs().sum(-1) for each in rows]).mean()),
    }


Call = tuple[nn.Module, tuple[Tensor, Tensor, Tensor], dict[str, Any]]


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[Call]]:
    """Collect the calls of a model's mechanisms while the block runs."""
    calls: list[Call] = []

    def record(mechanism: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        calls.append((mechanism, inputs, options))

    handles = [each.mechanism.register_forward_pre_hook(record, with_kwargs=True) for each in sublayers(model)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _layer(mechanism: nn.Module, inputs: tuple[Tensor, Tensor, Tensor], options: dict[str, Any]) -> Layer:
    """Return scores and weights of a mechanism's call, computed in full."""
    query, key, value = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in inputs)
    settings = dict(mechanism.options) if isinstance(mechanism, DenseAttention) else {}
    settings |= {"is_causal": options.get("is_causal", False), "enable_gqa": query.shape[1] != key.shape[1]}
    settings |= {"backend": "reference", "return_weights": True}
    weights = None
    if isinstance(mechanism, DenseAttention):
        _, weights = attention(query, key, value, map=mechanism.map, sinks=mechanism.sinks, **settings)
    # Softmax of equal scores is positive exactly where a token may look.
    _, uniform = attention(torch.zeros_like(query), key, value, **settings)
    scale = query.shape[-1] ** -0.5 if settings.get("scale") is None else settings["scale"]
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query @ key.transpose(-2, -1) * scale).masked_fill(uniform == 0, -torch.inf)
    return Layer(inputs[0], inputs[1], scores, weights)
