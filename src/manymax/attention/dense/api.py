"""`attention`, and `explain`, which says what it would do."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from manymax._autocast import without_autocast
from manymax._names import closest
from manymax.attention.dense.call import Window, make_call
from manymax.attention.dense.dispatch import Choice, choose, run
from manymax.maps.module import Map


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    map: str | Map = "softmax",
    bias: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    window: Window = None,
    causal_align: str = "top-left",
    return_weights: bool = False,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    r"""Attend with any map in the place of softmax: `F.scaled_dot_product_attention` with more options.

    $$o_i = \sum_j w_{ij} v_j, \qquad w_i = \operatorname{map}(s_i), \qquad
    s_{ij} = c \tanh\!\left(\frac{\lambda\, q_i \cdot k_j}{c}\right) + b_{ij}$$

    with $q_i, k_j, v_j$ query, key and value, $\lambda$ the scale, $c$ the softcap (without it the score is
    $\lambda\, q_i \cdot k_j + b_{ij}$), and $b$ the sum of `bias` and a float `attn_mask`. A row $s_i$ holds the keys
    that query $i$ sees: those that a bool `attn_mask`, causality and the window all allow, and to whose score -inf is
    not added; their number is the $n$ in a map's formula. The map's temperature divides $s$, sinks included. A query
    that sees no key has zero output and gives zero gradients.

    Args:
        query: (B, Hq, Nq, D). As in torch, fewer or more leading dims also work, and those of size 1 broadcast.
        key: (B, Hk, Nk, D).
        value: (B, Hk, Nk, Dv). As in torch, keys and values must be finite even where nobody sees them: 0 times NaN is
            NaN.
        attn_mask: broadcastable to (B, Hq, Nq, Nk); bool, True = may attend, or floating, added to the scores.
        dropout_p: the probability with which a weight is dropped; the others are divided by 1 - dropout_p. As in
            torch it always applies: pass 0 when evaluating.
        is_causal: whether query i sees no key after its own position; combines with `attn_mask`.
        scale: $\lambda$; None is $1 / \sqrt{D}$.
        enable_gqa: whether Hk may divide Hq: query head h then reads key head h // (Hq // Hk).
        map: a name from `list_maps`, or a module from `create_map`, whose parameters are learnt.
        bias: floating, broadcastable to (B, Hq, Nq, Nk), added to the scores.
        softcap: $c > 0$; acts before anything is added.
        sinks: (Hq,), each the score of one more key of its head, seen by every query, without a value: it takes its
            share of the row. Neither scaled nor capped; counts in $n$. Ratio and threshold maps only.
        window: (left, right) in keys: the query at position p sees keys p - left to p + right; w means (w, w), and None
            on a side is no bound.
        causal_align: where query 0 stands, for causality and window: "top-left" at key 0, "bottom-right" at key
            Nk - Nq, so that the last query stands at the last key.
        return_weights: whether to also return the weights, before dropout.
        return_lse: whether to also return the logarithm of each row's denominator, sinks and what the map adds
            included; -inf where it is 0. Ratio maps only.
        backend: "auto" (see `explain`), "reference", "tiled", "sdpa", "cpu" or "triton".

    Returns:
        The output (B, Hq, Nq, Dv) in the query's dtype, or a tuple (out[, weights][, lse]) in that order, with weights
        (B, Hq, Nq, Nk) in the query's dtype and lse (B, Hq, Nq) in float32, for float64 inputs in float64. All are
        differentiable; second derivatives need backend="reference".

    Raises:
        ValueError: if shapes, dtypes or values do not fit, or the backend that was asked for cannot serve the call.

    Example:
        >>> import torch, manymax as mm
        >>> query, key, value = torch.randn(3, 1, 8, 16, 64).unbind()
        >>> mm.attention(query, key, value, is_causal=True, map="softmax").shape
        torch.Size([1, 8, 16, 64])

    Source:
        Vaswani et al., 2017, Attention Is All You Need, arXiv:1706.03762; softcap: Gemma Team, 2024, Gemma 2,
        arXiv:2408.00118; sinks: OpenAI, 2025, gpt-oss-120b & gpt-oss-20b Model Card, arXiv:2508.10925; tiles: Rabe and
        Staats, 2021, Self-attention Does Not Need O(n^2) Memory, arXiv:2112.05682, and Dao et al., 2022,
        FlashAttention, arXiv:2205.14135.
    """
    call = make_call(
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
        map=map,
        bias=bias,
        softcap=softcap,
        sinks=sinks,
        window=window,
        causal_align=causal_align,
        return_weights=return_weights,
        return_lse=return_lse,
    )
    with without_autocast(query):  # the inputs have its dtype by now
        results = tuple(call.restore(x) for x in run(call, backend))
    return results if len(results) > 1 else results[0]


def choice(query: Tensor, key: Tensor, value: Tensor, *args: Any, backend: str = "auto", **options: Any) -> Choice:
    """Return which backend `attention` would take for the same arguments; its `str` is what `explain` returns.

    Args:
        query: as in `attention`, like all the others.
        key: the keys.
        value: the values.
        *args: attn_mask, dropout_p, is_causal.
        backend: the backend that is asked for.
        **options: the keyword arguments.

    Raises:
        TypeError: if an option does not exist.
        ValueError: if `attention` would refuse the arguments whatever the backend.
    """
    known = list(inspect.signature(make_call).parameters)[3:]
    for name in options:
        if name not in known:
            raise TypeError(f"attention has no option {name!r}; it has {', '.join(known)}{closest(name, known)}")
    return choose(make_call(query, key, value, *args, **options), backend)


def explain(query: Tensor, key: Tensor, value: Tensor, *args: Any, backend: str = "auto", **options: Any) -> str:
    """Say which backend would serve a call of `attention`, and why the others would not.

    "auto" goes by fixed rules, from the call's shapes and options alone. The first that fits decides:

    1. cpu, where it can: float32, bfloat16 or float16 on a CPU, and every map but coupled ones, clipped_softmax,
       topk_softmax, entmax at an alpha other than 1, 1.5 and 2, and those whose options are tensors.
    2. sdpa, where torch computes exactly what is asked and its kernel is fused. Not with a window over more than 2^18
       pairs of query and key, since tiles leave out what no query sees; not if another mask for causality would hold
       more than 2^22 pairs; not with sinks or softmax1 for fewer than 16 queries, since the keys are copied then.
    3. sdpa, where torch computes exactly what is asked but stores the weights (on a CPU: dropout, or a bias or mask
       with gradient), up to 2^22 scores over all heads.
    4. reference, up to 2^18 scores, for threshold maps 2^22: storing them is faster than computing them twice.
    5. tiled, where it can.
    6. reference.

    Args:
        query: as in `attention`, like all the others.
        key: the keys.
        value: the values.
        *args: attn_mask, dropout_p, is_causal.
        backend: the backend that is asked for.
        **options: the keyword arguments.

    Returns:
        One line for each backend, the one that serves first. If the backend that was asked for cannot serve, the first
        line says so; `attention` would raise.

    Raises:
        TypeError: if an option does not exist.
        ValueError: if `attention` would refuse the arguments whatever the backend.

    Example:
        >>> import torch, manymax as mm
        >>> query = key = value = torch.randn(1, 8, 16, 64, dtype=torch.float64)
        >>> print(mm.explain(query, key, value, map="softplus"))
        reference serves this call: 2048 scores are few enough to store
        sdpa cannot: torch computes softmax alone (and softmax1 through one key of zeros)
        tiled could: tiles never store the scores
        cpu cannot: it takes float32, bfloat16 and float16, not torch.float64
        triton cannot: it is not built yet
    """
    return str(choice(query, key, value, *args, backend=backend, **options))
