"""Shapes: any leading dims that torch accepts become (batch, heads), and masks follow."""

from __future__ import annotations

import torch
from torch import Tensor

from manymax._autocast import multiplied

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuse dtypes, devices and last dims that do not fit together."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if x.dtype not in DTYPES:
            raise ValueError(f"{name}: expected float16, bfloat16, float32 or float64, got {x.dtype}")
        if x.dtype != query.dtype or x.device != query.device:
            expected, got = (f"{y.dtype} on {y.device}" for y in (query, x))
            raise ValueError(f"{name}: expected the query's {expected}, got {got}")
        if x.dim() < 2 or x.dim() != query.dim():
            raise ValueError(f"{name}: expected (batch, heads, tokens, dim), as all three, got {tuple(x.shape)}")
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(f"key: expected the query's last dim {query.shape[-1]}, got shape {tuple(key.shape)}")
    if value.shape[-2] != key.shape[-2]:
        raise ValueError(f"value: expected one for each of {key.shape[-2]} keys, got shape {tuple(value.shape)}")


def _heads(query: Tensor, key: Tensor, value: Tensor, *, enable_gqa: bool) -> tuple[int, int]:
    """Return how many query heads and key heads there are; without GQA they broadcast like any other dim."""
    of_query, of_key, of_value = query.shape[-3], key.shape[-3], value.shape[-3]
    if enable_gqa:
        if of_key != of_value or (of_query != of_key and (of_key == 0 or of_query % of_key)):
            raise ValueError(
                f"enable_gqa: expected query heads to be a multiple of key heads and as many value heads as key heads, "
                f"got {of_query}, {of_key} and {of_value}"
            )
        return of_query, of_key
    if of_query == of_key == of_value:
        return of_query, of_key
    several = {of_query, of_key, of_value} - {1}
    if len(several) != 1:
        raise ValueError(
            f"key: expected the query's {of_query} heads, or enable_gqa=True, got {of_key} and the value's {of_value}"
        )
    most = several.pop()
    return most, most


def _fits(query: Tensor, key: Tensor, value: Tensor, *, enable_gqa: bool) -> bool:
    """Return whether all have four dims that need no broadcasting: then one look at their shapes is all."""
    if not query.dim() == key.dim() == value.dim() == 4 or query.dtype not in DTYPES:
        return False
    batch, heads, _, dim = query.shape
    key_batch, key_heads, keys, key_dim = key.shape
    shared = key_heads == heads or (enable_gqa and key_heads > 0 and heads % key_heads == 0)
    return (
        shared
        and key_batch == batch
        and key_dim == dim
        and value.shape[:3] == (batch, key_heads, keys)
        and query.dtype == key.dtype == value.dtype
        and query.device == key.device == value.device
    )


def broadcast_inputs(
    query: Tensor, key: Tensor, value: Tensor, *, enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Return query, key and value as (batch, heads, tokens, dim), and the leading dims of the result.

    Fewer than four dims get leading ones; more are flattened into the batch; dims of size 1 broadcast.
    """
    query, key, value = multiplied(query, key, value)
    if _fits(query, key, value, enable_gqa=enable_gqa):
        return query, key, value, (query.shape[0], query.shape[1])
    _check_inputs(query, key, value)
    dims = query.dim()
    if dims < 4:
        query, key, value = (x[(None,) * (4 - dims)] for x in (query, key, value))
    try:
        batch: tuple[int, ...] = torch.broadcast_shapes(*(x.shape[:-3] for x in (query, key, value)))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"query: expected batch dims that broadcast with the key's and value's, got {shapes}"
        ) from error
    query_heads, key_heads = _heads(query, key, value, enable_gqa=enable_gqa)
    query = query.expand(*batch, query_heads, *query.shape[-2:]).flatten(0, -4)
    key, value = (x.expand(*batch, key_heads, *x.shape[-2:]).flatten(0, -4) for x in (key, value))
    return query, key, value, (*batch, query_heads)[max(4 - dims, 0) :]


def broadcast_scores(name: str, x: Tensor, leading: tuple[int, ...], shape: tuple[int, int, int, int]) -> Tensor:
    """Return a mask or bias with four dims that broadcast to the scores' (B, Hq, Nq, Nk); broadcast dims stay 1."""
    full = (*leading, *shape[2:])
    ones = (1,) * (len(full) - x.dim())
    wide = (*ones, *x.shape)
    if len(wide) != len(full) or any(have not in {1, want} for have, want in zip(wide, full, strict=True)):
        raise ValueError(f"{name}: expected a shape that broadcasts to {full}, got {tuple(x.shape)}")
    x = x.reshape(wide)
    if len(wide) <= 4:
        return x[(None,) * (4 - len(wide))]
    batch = full[:-3]
    same = all(have == 1 for have in wide[: len(batch)])
    x = x if same else x.expand(*batch, *wide[-3:])
    return x.flatten(0, -4)
