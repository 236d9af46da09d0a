"""`F.multi_head_attention_forward` with any map: the same arguments, the same results."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from manymax.attention.dense.api import attention
from manymax.integrations.scores import without_finite
from manymax.maps.module import Map


class Projections(NamedTuple):
    """The weights of a layer, as torch names them; those of queries, keys and values lie in one or in three."""

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor | None
    k_proj_weight: Tensor | None
    v_proj_weight: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    out_proj_weight: Tensor
    out_proj_bias: Tensor | None

    def split(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Return the projected queries, keys and values."""
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            if query is key and key is value:
                return list(F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1))
            weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    map: str | Map = "softmax",
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Return the output (Nq, B, E) and, if asked for, the weights; the batch may be missing.

    Args and returns are those of `F.multi_head_attention_forward`, tokens first, and beside them:
        map: the map.
        backend: the backend of `attention`.

    Raises:
        ValueError: if shapes do not fit, or for keys and values that are given projected (`static_k`, `static_v`).
    """
    batched = query.dim() == 3
    if query.is_nested or key.is_nested or value.is_nested:
        raise ValueError("query: expected an ordinary tensor, got a nested one")
    if static_k is not None or static_v is not None:
        raise ValueError("static_k: expected None, since keys and values are projected here")
    if query.shape[-1] != embed_dim_to_check:
        raise ValueError(f"query: expected a last dim of {embed_dim_to_check}, got {tuple(query.shape)}")
    if is_causal and attn_mask is None:
        raise ValueError("attn_mask: expected the causal mask that is_causal announces, got None")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else (None, None, None)
    packed = None if use_separate_proj_weight else in_proj_weight
    given = Projections(packed, in_proj_bias, *separate, bias_k, bias_v, out_proj_weight, out_proj_bias)
    heads = [_heads(x if batched else x[:, None], num_heads) for x in given.split(query, key, value)]
    keys, values, extra = _extended(heads[1], heads[2], given, num_heads, add_zero_attn=add_zero_attn)
    mask = _pairs(attn_mask, heads[0], heads[1])
    causal = is_causal and not extra
    visibility: dict[str, Any] = _together(None if causal else mask, key_padding_mask, extra)
    if map != "softmax":
        visibility = {name: without_finite(x) for name, x in visibility.items()}
    found = attention(
        heads[0],
        keys,
        values,
        dropout_p=dropout_p if training else 0.0,
        is_causal=causal,
        map=map,
        return_weights=need_weights,
        backend=backend,
        **visibility,
    )
    out, weights = found if need_weights else (found, None)
    out = F.linear(out.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if weights is not None:
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights if batched else weights[0]
    return out if batched else out[:, 0], weights


def _heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, heads, N, D) of (N, B, heads * D)."""
    return x.reshape(*x.shape[:2], heads, -1).permute(1, 2, 0, 3)


def _extended(
    key: Tensor, value: Tensor, given: Projections, heads: int, *, add_zero_attn: bool
) -> tuple[Tensor, Tensor, int]:
    """Return keys and values with those that the layer has beside the tokens', and how many these are."""
    extra = 0
    if given.bias_k is not None and given.bias_v is not None:
        more = [_heads(x, heads).expand(len(key), -1, -1, -1) for x in (given.bias_k, given.bias_v)]
        key, value, extra = torch.cat([key, more[0]], 2), torch.cat([value, more[1]], 2), 1
    if add_zero_attn:
        key, value, extra = F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1)), extra + 1
    return key, value, extra


def _pairs(attn_mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """Return a mask of torch's, (Nq, Nk) or (B * heads, Nq, Nk), with four dims."""
    if attn_mask is None:
        return None
    batch, heads, queries, _ = query.shape
    pairs = (queries, key.shape[2])
    if attn_mask.shape == pairs:
        return attn_mask[None, None]
    if attn_mask.shape != (batch * heads, *pairs):
        expected = f"{pairs} or {(batch * heads, *pairs)}"
        raise ValueError(f"attn_mask: expected a shape of {expected}, got {tuple(attn_mask.shape)}")
    return attn_mask.view(batch, heads, *pairs)


def _together(mask: Tensor | None, padding: Tensor | None, extra: int) -> dict[str, Tensor | None]:
    """Return attention's arguments: torch's bool masks are True where nobody may look, and hide no key of the layer."""
    if padding is not None:
        padding = (padding if padding.dim() == 2 else padding[None])[:, None, None, :]
    hidden: list[Tensor] = []
    added: list[Tensor] = []
    for x in (mask, padding):
        if x is not None:
            (hidden if x.dtype == torch.bool else added).append(F.pad(x, (0, extra)) if extra else x)
    if len(hidden) == 2:
        hidden = [hidden[0] | hidden[1]]
    found: dict[str, Tensor | None] = {"attn_mask": ~hidden[0] if hidden else None, "bias": None}
    return found | dict(zip(("bias",) if hidden else ("bias", "attn_mask"), added, strict=False))
