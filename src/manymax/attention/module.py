"""Mechanisms by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from manymax._names import closest
from manymax.attention.registry import ATTENTIONS


def list_attentions(filter: str = "*") -> list[str]:
    """Return the names of the attention mechanisms.

    Args:
        filter: a shell pattern, in which `*` stands for anything and `?` for one character.

    Returns:
        The names that match, sorted.

    Example:
        >>> import manymax as mm
        >>> mm.list_attentions("soft*x")
        ['softmax']
    """
    return sorted(name for name in ATTENTIONS if fnmatchcase(name, filter))


def create_attention(name: str, *, head_dim: int, num_heads: int, **params: Any) -> Any:
    """Create an attention mechanism by name.

    Args:
        name: one of `list_attentions()`.
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads. Keys and values may have fewer, if their number divides it.
        **params: the mechanism's own options, which `manymax show` lists. For a map they are `scale`, `softcap`,
            `sinks` (True to learn them), `window`, `causal_align`, `dropout_p` (in training mode) and `backend`, as in
            `attention`, and beside them the map's own.

    Returns:
        A module with `forward(query, key, value, *, attn_mask=None, is_causal=False)`; tensors are (batch, heads,
        tokens, dim). Causal mechanisms with a state also have `prefill(query, key, value)` and
        `step(query, key, value, state)`, each of which returns (out, state).

    Raises:
        TypeError: if the mechanism has no such option.
        ValueError: if the name is unknown or an option's value is out of range.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("softmax", head_dim=64, num_heads=8, window=128, sinks=True)
        >>> query, key, value = torch.randn(3, 1, 8, 16, 64).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 8, 16, 64])
        >>> out, state = attend.prefill(query, key, value)
        >>> out, state = attend.step(query[:, :, :1], key[:, :, :1], value[:, :, :1], state)
        >>> out.shape
        torch.Size([1, 8, 1, 64])
    """
    if name not in ATTENTIONS:
        known = list_attentions()
        raise ValueError(f"name: expected one of {', '.join(known)}, got {name!r}{closest(name, known)}")
    return ATTENTIONS[name](head_dim=head_dim, num_heads=num_heads, **params)
