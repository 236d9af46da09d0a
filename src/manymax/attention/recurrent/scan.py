"""Prefix scans with any associative operator, and the operator that merges parts of a softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from manymax._names import closest

Item = TypeVar("Item", bound=tuple[Tensor, ...])
FORMS = ("hillis-steele", "blelloch", "sequential")
NOTHING = -1e30  # stands for -inf as the largest score of no tokens: differences of it are numbers, and its exp is 0


def prefix_scan(merge: Callable[[Item, Item], Item], items: Item, form: str = "hillis-steele") -> Item:
    """Return, at every place of dim 2, all items up to there merged in order.

    Args:
        merge: an associative operator on tuples of tensors, from left to right.
        items: tensors (B, H, N, ...), with N at least 1.
        form: "hillis-steele" merges all places log2 N times, "blelloch" half as many places each time, up a tree and
            down again, and "sequential" goes place by place. It changes no result but for rounding.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}{closest(form, FORMS)}")
    return {"hillis-steele": _hillis_steele, "blelloch": _blelloch, "sequential": _sequential}[form](merge, items)


def merge_softmax(
    left: tuple[Tensor, Tensor, Tensor], right: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the softmax of two sets of tokens together: (largest score, sum of weights, weighted sum of values).

    Weights are exp(score - largest score of the set), so that the quotient of the last two does not depend on which
    number is subtracted: it has no gradient.

    Args:
        left: (..., 1), (..., 1) and (..., Dv) of one set.
        right: the same of another.
    """
    largest = torch.maximum(left[0], right[0])
    first, second = (left[0] - largest).exp(), (right[0] - largest).exp()
    return largest, left[1] * first + right[1] * second, left[2] * first + right[2] * second


def _at(items: Item, where: slice) -> Item:
    return tuple(x[:, :, where] for x in items)  # type: ignore[return-value]


def _cat(*parts: Item) -> Item:
    return tuple(torch.cat(pieces, 2) for pieces in zip(*parts, strict=True))  # type: ignore[return-value]


def _hillis_steele(merge: Callable[[Item, Item], Item], items: Item) -> Item:
    """Hillis and Steele, 1986: after the step of 2^s, each place holds the 2^(s+1) items that end there."""
    count, step = items[0].shape[2], 1
    while step < count:
        onward = merge(_at(items, slice(0, count - step)), _at(items, slice(step, None)))
        items = _cat(_at(items, slice(0, step)), onward)
        step *= 2
    return items


def _blelloch(merge: Callable[[Item, Item], Item], items: Item) -> Item:
    """Blelloch, 1990: scan the merged pairs, the odd places; each even one merges its item to the pair before it."""
    count = items[0].shape[2]
    if count == 1:
        return items
    paired = count - count % 2
    pairs = merge(_at(items, slice(0, paired, 2)), _at(items, slice(1, paired, 2)))
    odd = _blelloch(merge, pairs)
    later = _at(items, slice(2, None, 2))  # even places but the first
    even = _cat(_at(items, slice(0, 1)), merge(_at(odd, slice(0, later[0].shape[2])), later))
    return tuple(_interleaved(x, y) for x, y in zip(even, odd, strict=True))  # type: ignore[return-value]


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    count = odd.shape[2]
    pairs = torch.stack([even[:, :, :count], odd], 3).flatten(2, 3)
    return torch.cat([pairs, even[:, :, count:]], 2)


def _sequential(merge: Callable[[Item, Item], Item], items: Item) -> Item:
    merged = [_at(items, slice(0, 1))]
    for place in range(1, items[0].shape[2]):
        merged.append(merge(merged[-1], _at(items, slice(place, place + 1))))
    return _cat(*merged)
