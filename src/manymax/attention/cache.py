"""The state of mechanisms that look at every earlier token: keys and values, and which of them are padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manymax.attention.state import State, continues


@dataclass(frozen=True)
class TokenCache(State):
    """Tokens that later queries may see.

    Attributes:
        key: (B, Hk, tokens, D).
        value: (B, Hk, tokens, Dv).
        keep: (B, tokens), False at padding.
    """

    key: Tensor
    value: Tensor
    keep: Tensor


def remember(cache: TokenCache | None, key: Tensor, value: Tensor, keep: Tensor | None) -> TokenCache:
    """Return the cache with further tokens; keep (B, N) is False at padding, None is no padding."""
    if keep is None:
        keep = torch.ones(key.shape[0], key.shape[2], dtype=torch.bool, device=key.device)
    if cache is None:
        return TokenCache(key, value, keep)
    continues(cache.key, key)
    continues(cache.value, value)
    tokens = torch.cat([cache.key, key], 2), torch.cat([cache.value, value], 2)
    return TokenCache(*tokens, torch.cat([cache.keep, keep], 1))


def visible(cache: TokenCache, queries: int, *, is_causal: bool) -> Tensor:
    """Return which keys each query sees, (B, 1, queries or 1, tokens); the last query stands at the last key."""
    seen = cache.keep[:, None, None]
    if not is_causal:
        return seen
    tokens = cache.keep.shape[1]
    return seen & torch.ones(queries, tokens, dtype=torch.bool, device=seen.device).tril(tokens - queries)
