"""The place of a mechanism's state in a model's cache."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class StateLayer(DynamicLayer):  # type: ignore[misc]
    """A layer of a model's cache that holds a mechanism's state and how many tokens it is of."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Any = None
        self.seen = 0

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Refuse keys and values, which another kind of attention brings."""
        del args, kwargs
        raise ValueError("past_key_values: this layer's cache holds a state; it was made by a model with other layers")

    def get_seq_length(self, *args: Any) -> int:
        """Return how many tokens the state is of."""
        del args
        return self.seen

    def reset(self) -> None:
        """Forget all tokens."""
        self.state, self.seen = None, 0

    def crop(self, *args: Any) -> None:
        """Refuse to forget the last tokens, which a state cannot."""
        del args
        raise ValueError("past_key_values: a state cannot forget its last tokens, as assisted generation asks for")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences of the batch."""
        self.state = None if self.state is None else self.state[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence of the batch."""
        if self.state is not None:
            self.state = self.state.apply(lambda x: x.repeat_interleave(repeats, 0))

    def offload(self) -> None:
        """Stay where it is: a state is small."""

    def prefetch(self) -> None:
        """Stay where it is."""


def state_layer(cache: Any, index: int) -> StateLayer:
    """Return a cache's layer; an empty one for keys and values makes place for one with a state."""
    while len(cache.layers) <= index:
        cache.layers.append(cache.layer_class_to_replicate())
    layer = cache.layers[index]
    if isinstance(layer, StateLayer):
        return layer
    if not isinstance(layer, DynamicLayer) or layer.get_seq_length():
        raise ValueError(f"past_key_values: expected an empty dynamic cache, got {type(layer).__name__}")
    cache.layers[index] = StateLayer()
    found: StateLayer = cache.layers[index]
    return found
