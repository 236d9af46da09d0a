"""The masks that models ask for: none where flags say it all, a band where they do not, else every pair."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from manymax.integrations.transformers.band import band_mask

Sides = tuple[int | None, int | None]


def make_mask(masking: Any, **given: Any) -> Tensor | None:
    """Return a model's mask, bool (B, 1, Nq, Nk), True = may attend; None where nothing but causality hides a key.

    None is what the library's own function for torch's attention returns in the same place, so that a layer's
    `is_causal` is as right for one as for the other.

    Args:
        masking: `transformers.masking_utils`.
        **given: what the mask is of.
    """
    sides = None if torch.compiler.is_compiling() else _sides(masking, given)
    if sides is None:
        return _every_pair(masking, given)
    queries, offset = _queries(given)
    keys, first = int(given["kv_length"]), int(given.get("kv_offset", 0))
    align = _align(queries, keys, offset - first)
    left, right = sides
    if align is None and sides != (None, None):
        return _every_pair(masking, given)
    keep = _padding(given.get("attention_mask"), keys, first, queries if align == "top-left" and right == 0 else keys)
    bound = left if left is not None and left < keys - 1 else None
    if keep is None and bound is None and (right != 0 or align == "top-left" or queries in {1, keys}):
        narrow = right is not None and 0 < right < keys - 1
        if not narrow:
            return None
    shape = (int(given["batch_size"]), queries, keys)
    device = given.get("device", "cpu") if keep is None else keep.device
    return band_mask(shape, bound, right, align or "top-left", keep, device)


def _every_pair(masking: Any, given: dict[str, Any]) -> Tensor | None:
    """Return the library's own bool mask; where nothing can be read, without a look at the padding."""
    if not torch.compiler.is_compiling():
        given = {**given, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask: Tensor | None = masking.sdpa_mask(**given)
    return mask


def _queries(given: dict[str, Any]) -> tuple[int, int]:
    """Return how many queries there are, and where the first stands; before 5.4 models told it by positions."""
    if (positions := given.get("cache_position")) is not None:
        return len(positions), int(positions[0])
    return int(given["q_length"]), int(given.get("q_offset", 0))


def _align(queries: int, keys: int, offset: int) -> str | None:
    """Return which of `attention`'s alignments puts query 0 at key `offset`; None is neither."""
    if offset + queries == keys:
        return "bottom-right"
    return "top-left" if offset == 0 else None


def _padding(attention_mask: Tensor | None, keys: int, first: int, matter: int) -> Tensor | None:
    """Return which keys are no padding, (B, keys); None if none of the first `matter` is."""
    if attention_mask is None:
        return None
    keep = attention_mask.to(torch.bool)
    keep = F.pad(keep, (0, max(first + keys - keep.shape[-1], 0)))[:, first : first + keys]
    return None if bool(keep[:, :matter].all()) else keep


def _sides(masking: Any, given: dict[str, Any]) -> Sides | None:
    """Return the window that the mask's rule amounts to; None for a rule that is none, or that must be spelt out."""
    rule = given.get("mask_function", masking.causal_mask_function)
    sides = _window(masking, rule)
    if sides is None:
        return None
    causal = sides[1] == 0
    allowed = given.get("allow_is_causal_skip", True) if causal else given.get("allow_is_bidirectional_skip", False)
    return sides if allowed else None


def _window(masking: Any, rule: Callable[..., Any]) -> Sides | None:
    """Recognise a rule by the functions that it is made of, which are public in the library."""
    if rule is masking.causal_mask_function:
        return None, 0
    if rule is getattr(masking, "bidirectional_mask_function", None):
        return None, None
    parts = _captured(rule, "mask_functions")
    if not _same_code(rule, masking.and_masks()) or parts is None or len(parts) != 2:
        return None
    overlay, base = parts
    size = _captured(overlay, "sliding_window")
    if not isinstance(size, int):
        return None
    if base is masking.causal_mask_function and _same_code(overlay, masking.sliding_window_overlay(1)):
        return size - 1, 0
    symmetric = getattr(masking, "sliding_window_bidirectional_overlay", None)
    if symmetric is not None and base is masking.bidirectional_mask_function and _same_code(overlay, symmetric(1)):
        return size, size
    return None


def _captured(function: Callable[..., Any], name: str) -> Any:
    """Return what a function holds under a name from where it was made, or None."""
    return inspect.getclosurevars(function).nonlocals.get(name) if inspect.isfunction(function) else None


def _same_code(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    return getattr(one, "__code__", None) is getattr(other, "__code__", other)
