"""Forms of one recurrence compared: errors of outputs and gradients, and what automatic differentiation keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manymax.attention.linear.recurrence import linear_attention


def heads(seed: int, length: int, *, count: int, width: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return query, key and value (1, count, length, width), standard normal over the root of the width."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(3, 1, count, length, width, generator=generator, dtype=torch.float64) * width**-0.5
    return [x.to(dtype).requires_grad_() for x in drawn.unbind()]


def results(work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a work's output and its gradients at a fixed random direction."""
    out = work(*inputs)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), list(inputs))]


def largest_relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference of any tensor, each over the largest number expected in it."""
    pairs = zip(found, expected, strict=True)
    return max(float((x.double() - y.double()).abs().max() / y.double().abs().max()) for x, y in pairs)


def form(log_decay: Tensor, **options: Any) -> Callable[..., Tensor]:
    """Return linear attention with a decay a head in one of its forms, as a function of query, key and value."""

    def work(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return linear_attention(query, key, value, log_decay=log_decay.to(query.dtype), **options)[0]

    return work


def by_cumulative_sums(log_decay: Tensor) -> Callable[..., Tensor]:
    """Return the form that keeps the state after every token, a cumulative sum with exp(s t) beside keys and queries.

    Decays are taken relative to the middle of the sequence, which puts off overflow.
    """

    def work(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        places = torch.arange(query.shape[2], dtype=query.dtype) - query.shape[2] / 2
        grown = (-log_decay.to(query.dtype)[:, None] * places).exp()[..., None]
        states = ((key * grown)[..., :, None] * value[..., None, :]).cumsum(2)
        return ((query / grown)[..., None, :] @ states)[..., 0, :]

    return work


def saved_bytes(work: Callable[[], Tensor]) -> int:
    """Return how many bytes automatic differentiation keeps of a forward pass, each storage counted once."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = work()
    del out
    return sum(kept.values())


def seconds_of(work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], object]:
    """Return a call that goes forward and backward once."""

    def call() -> object:
        return torch.autograd.grad(work(*inputs).sum(), list(inputs))

    return call
