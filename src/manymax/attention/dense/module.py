"""Dense attention as a module, with a cache of keys and values."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manymax._names import closest
from manymax.attention.dense.api import attention, choice
from manymax.attention.dense.call import Window, window_sides
from manymax.attention.dense.dispatch import Choice
from manymax.attention.options import check_sizes
from manymax.attention.state import State, continues
from manymax.maps.module import Map
from manymax.maps.registry import MAPS
from manymax.maps.sinkhorn import Sinkhorn


@dataclass(frozen=True)
class KeyValueCache(State):
    """The keys and values that later queries may see: (B, Hk, tokens, D) and (B, Hk, tokens, Dv)."""

    key: Tensor
    value: Tensor


class DenseAttention(nn.Module):
    """Attention over all pairs with one map; `attention` says what the options mean.

    Args:
        map: the map's name.
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads. Keys and values may have fewer, if their number divides it.
        scale: factor of the scores; None is 1 / sqrt(head_dim).
        softcap: bound of the scores.
        sinks: whether each head learns the score of one more key without a value; it starts at 0.
        window: how many keys to the left and right a query sees.
        causal_align: where the first query stands.
        dropout_p: probability of dropping a weight, in training mode.
        backend: the backend to take.
        **map_options: the map's own options; an `nn.Parameter` is learnt.

    Raises:
        TypeError: if neither attention nor the map has such an option.
        ValueError: if a value is out of range, or the backend cannot serve the options.
    """

    rotary = True  # models turn queries and keys by their positions

    def __init__(
        self,
        map: str,
        *,
        head_dim: int,
        num_heads: int,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: bool = False,
        window: Window = None,
        causal_align: str = "top-left",
        dropout_p: float = 0.0,
        backend: str = "auto",
        **map_options: Any,
    ) -> None:
        super().__init__()
        check_sizes(head_dim=head_dim, num_heads=num_heads)
        _check_names(map, map_options)
        self.head_dim = head_dim
        self.num_heads = num_heads
        self.dropout_p = dropout_p
        self.map = Map(map, **map_options)
        self.sinks = nn.Parameter(torch.zeros(num_heads)) if sinks else None
        self.options: dict[str, Any] = {
            "scale": scale,
            "softcap": softcap,
            "window": window,
            "causal_align": causal_align,
            "backend": backend,
        }
        one_token = torch.zeros(1, num_heads, 1, head_dim)
        trial = self.choice(one_token, one_token, one_token)
        if trial.name is None:
            raise ValueError(trial.error())

    def _arguments(self, query: Tensor, key: Tensor, value: Tensor) -> dict[str, Any]:
        """Return the arguments for `attention` that do not come from the caller."""
        if query.dim() != 4 or query.shape[1] != self.num_heads or query.shape[-1] != self.head_dim:
            expected = f"(batch, {self.num_heads}, tokens, {self.head_dim})"
            raise ValueError(f"query: expected {expected}, got {tuple(query.shape)}")
        return {
            "query": query,
            "key": key,
            "value": value,
            "dropout_p": self.dropout_p if self.training else 0.0,
            "enable_gqa": key.shape[1] != self.num_heads,
            "map": self.map,
            "sinks": self.sinks,
            **self.options,
        }

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Return the output (B, num_heads, Nq, Dv).

        Args:
            query: (B, num_heads, Nq, head_dim).
            key: (B, Hk, Nk, head_dim).
            value: (B, Hk, Nk, Dv).
            attn_mask: bool or floating, broadcastable to (B, num_heads, Nq, Nk).
            is_causal: whether a query sees no key after its own position.
        """
        arguments = self._arguments(query, key, value)
        out: Tensor = attention(**arguments, attn_mask=attn_mask, is_causal=is_causal)
        return out

    def choice(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Choice:
        """Return which backend `forward` would take for the same arguments."""
        return choice(**self._arguments(query, key, value), attn_mask=attn_mask, is_causal=is_causal)

    @property
    def supports_cache(self) -> bool:
        """Return whether `prefill` and `step` give what one causal call gives: not if rows depend on each other."""
        return not isinstance(self.map.rule(), Sinkhorn)

    def prefill(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, KeyValueCache]:
        """Attend causally over the first tokens, and keep their keys and values for `step`."""
        if query.shape[2] != key.shape[2]:
            raise ValueError(f"key: expected one for each of {query.shape[2]} queries, got shape {tuple(key.shape)}")
        empty = KeyValueCache(key[:, :, :0], value[:, :, :0])
        return self.step(query, key, value, empty)

    def step(self, query: Tensor, key: Tensor, value: Tensor, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        """Attend from the next tokens, one or several, to themselves and to all before them.

        Args:
            query: (B, num_heads, tokens, head_dim), the new tokens' alone.
            key: (B, Hk, tokens, head_dim).
            value: (B, Hk, tokens, Dv).
            state: what `prefill` or the last `step` returned; it is not changed.
        """
        if not self.supports_cache:
            raise ValueError(f"step: expected a map whose rows stand alone; in {self.map.name} a new row changes all")
        try:
            key, value = torch.cat([state.key, key], 2), torch.cat([state.value, value], 2)
        except RuntimeError:  # not before: the checks are 4 % of a step of one token
            continues(state.key, key)
            continues(state.value, value)
            raise
        arguments = {**self._arguments(query, key, value), "causal_align": "bottom-right"}
        out: Tensor = attention(**arguments, is_causal=True)
        return out, self._remember(key, value)

    def _remember(self, key: Tensor, value: Tensor) -> KeyValueCache:
        """Return the cache without the keys that have left the window for good."""
        left, _ = window_sides(self.options["window"])
        first = 0 if left is None else max(key.shape[2] - left, 0)
        return KeyValueCache(key[:, :, first:], value[:, :, first:])

    def extra_repr(self) -> str:
        """Show the options that are not the default."""
        parameters = inspect.signature(DenseAttention).parameters
        shown = [f"{name}={value!r}" for name, value in self.options.items() if value != parameters[name].default]
        return ", ".join([f"head_dim={self.head_dim}, num_heads={self.num_heads}", *shown])


def _check_names(map: str, map_options: dict[str, Any]) -> None:
    """Refuse options that neither attention nor the map has."""
    parameters = inspect.signature(DenseAttention).parameters
    own = [name for name in parameters if name not in {"map", "head_dim", "num_heads", "map_options"}]
    of_map = [field.name for field in dataclasses.fields(MAPS[map].rule)]
    for name in map_options:
        if name not in of_map:
            raise TypeError(
                f"{map} attention has no option {name!r}; attention has {', '.join(own)}; "
                f"the map has {', '.join(of_map)}{closest(name, [*own, *of_map])}"
            )
