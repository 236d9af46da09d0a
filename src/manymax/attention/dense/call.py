"""One attention call: its arguments, checked, in the one form that every backend reads."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from manymax._names import closest
from manymax.attention.dense.inputs import Inputs
from manymax.attention.dense.shapes import broadcast_inputs, broadcast_scores
from manymax.attention.dense.visibility import Band, make_band
from manymax.maps.module import Map, list_maps
from manymax.maps.registry import MAPS
from manymax.maps.rule import Rule

ALIGNMENTS = ("top-left", "bottom-right")
Window = int | tuple[int | None, int | None] | None
_DEFAULTS = {name: entry.rule() for name, entry in MAPS.items()}  # making one costs as much as a tenth of a short call


class Options(NamedTuple):
    """What a call says beside its tensors."""

    rule: Rule
    band: Band
    scale: float
    softcap: float | None
    dropout_p: float
    return_weights: bool
    return_lse: bool


class Call(NamedTuple):
    """Tensors, options, and the leading dims that the caller's query had."""

    inputs: Inputs
    options: Options
    leading: tuple[int, ...]

    def restore(self, x: Tensor) -> Tensor:
        """Give a result (B, Hq, ...) the caller's leading dims."""
        return x if len(self.leading) == 2 else x.reshape(*self.leading, *x.shape[2:])


def make_rule(chosen: str | Map) -> Rule:
    """Return the rule of a map given by name or as a module."""
    if isinstance(chosen, Map):
        return chosen.rule()
    if isinstance(chosen, str) and chosen in _DEFAULTS:
        return _DEFAULTS[chosen]
    if not isinstance(chosen, str):
        raise ValueError(f"map: expected a map's name, or its module from create_map, got {chosen!r}")  # noqa: TRY004
    if chosen not in MAPS:
        known = list_maps()
        raise ValueError(f"map: expected one of {', '.join(known)}, got {chosen!r}{closest(chosen, known)}")
    return MAPS[chosen].rule()


def window_sides(window: Window) -> tuple[int | None, int | None]:
    """Return how many keys to the left and to the right a window shows; None is no bound."""
    if window is None:
        return None, None
    sides = tuple(window) if isinstance(window, (tuple, list)) else (window, window)
    good = all(w is None or (isinstance(w, int) and not isinstance(w, bool) and w >= 0) for w in sides)
    if len(sides) != 2 or not good:
        raise ValueError(f"window: expected w or (left, right), each an int >= 0 or None, got {window!r}")
    return sides


def make_options(
    rule: Rule,
    shape: tuple[int, int, int, int],
    *,
    dropout_p: float,
    is_causal: bool,
    scale: float | Tensor,
    softcap: float | None,
    window: Window,
    causal_align: str,
    return_weights: bool,
    return_lse: bool,
) -> Options:
    """Check the options against each other and against the scores' shape."""
    if isinstance(scale, Tensor) or not -math.inf < scale < math.inf:
        raise ValueError(f"scale: expected a finite number, got {scale!r}; a learnt factor goes into the query")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p: expected a probability from 0 to 1, got {dropout_p!r}")
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"softcap: expected None or a number above 0, got {softcap!r}")
    if causal_align not in ALIGNMENTS:
        raise ValueError(f"causal_align: expected 'top-left' or 'bottom-right', got {causal_align!r}")
    if return_lse and rule.kind != "ratio":
        raise ValueError(f"return_lse: expected a ratio map, whose weights have a denominator, got a {rule.kind} map")
    align_last = causal_align == "bottom-right"
    band = make_band(shape[2], shape[3], window_sides(window), is_causal=is_causal, align_last=align_last)
    return Options(rule, band, scale, softcap, dropout_p, return_weights, return_lse)


def _check_sinks(sinks: Tensor, rule: Rule, heads: int) -> None:
    """Refuse sinks of the wrong shape, and maps in which one extra key has no meaning."""
    if rule.kind == "pointwise":
        raise ValueError("sinks: expected a ratio or threshold map; a pointwise map has no row that a sink could join")
    if rule.kind == "coupled":
        raise ValueError("sinks: expected a ratio or threshold map; a coupled map would also balance the sink's column")
    if not sinks.is_floating_point() or sinks.shape != (heads,):
        raise ValueError(
            f"sinks: expected a floating tensor of shape ({heads},), got {sinks.dtype} {tuple(sinks.shape)}"
        )


def _make_masks(
    attn_mask: Tensor | None, bias: Tensor | None, leading: tuple[int, ...], shape: tuple[int, int, int, int]
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """Return the bool mask and the tensors that are added to the scores."""
    mask = None
    additions = []
    for name, x in (("attn_mask", attn_mask), ("bias", bias)):
        if x is None:
            continue
        if x.dtype == torch.bool and name == "attn_mask":
            mask = broadcast_scores(name, x, leading, shape)
        elif x.is_floating_point():
            additions.append(broadcast_scores(name, x, leading, shape))
        else:
            kinds = "bool or floating" if name == "attn_mask" else "floating"
            raise ValueError(f"{name}: expected a {kinds} tensor, got {x.dtype}")
    return mask, tuple(additions)


def make_call(
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
) -> Call:
    """Check the arguments of `attention`, which documents them."""
    rule = make_rule(map)
    query, key, value, leading = broadcast_inputs(query, key, value, enable_gqa=enable_gqa)
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    mask: Tensor | None = None
    additions: tuple[Tensor, ...] = ()
    if attn_mask is not None or bias is not None:
        mask, additions = _make_masks(attn_mask, bias, leading, shape)
    if sinks is not None:
        _check_sinks(sinks, rule, shape[1])
    options = make_options(
        rule,
        shape,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale,
        softcap=softcap,
        window=window,
        causal_align=causal_align,
        return_weights=return_weights,
        return_lse=return_lse,
    )
    return Call(Inputs(query, key, value, mask, sinks, additions), options, leading)
