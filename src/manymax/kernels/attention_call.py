"""Calls of the attention kernels: tensors as addresses and strides, results in new memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from manymax.kernels.native import native

DTYPES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}
FORWARD, BACKWARD, FEW = 0, 1, 2  # the kernels of a map; the last one, for few queries, goes forwards alone
FAR = 2**60  # more than any difference of positions: no bound


class Work(NamedTuple):
    """What a kernel reads beside tensors.

    Attributes:
        map: the kernel's name.
        options: the map's, in the order in which its kernel reads them.
        temperature: what scores are divided by.
        scale: what products of queries and keys are multiplied by.
        softcap: bound of the scores; 0 is none.
        dropout: the probability with which a weight is dropped.
        low: query i sees key j where low <= j - i <= high.
        high: the other bound.
        lse: whether to return the denominators' logarithm.
        few: whether the kernel for few queries serves.
    """

    map: str
    options: tuple[float, ...]
    temperature: float
    scale: float
    softcap: float
    dropout: float
    low: int
    high: int
    lse: bool
    few: bool


class Tensors(NamedTuple):
    """What a kernel reads."""

    query: Tensor  # (B, Hq, Nq, D)
    key: Tensor  # (B, Hk, Nk, D)
    value: Tensor  # (B, Hk, Nk, Dv)
    mask: Tensor | None = None  # bool, broadcastable to (B, Hq, Nq, Nk)
    sinks: Tensor | None = None  # (Hq,)
    first: Tensor | None = None  # added to the scores, broadcastable to (B, Hq, Nq, Nk)
    second: Tensor | None = None


def empty_tokens(like: Tensor, dim: int) -> Tensor:
    """Return memory for (B, H, tokens, dim), with heads inside of tokens where `like` has them so.

    A model that folds heads into a token's features and back then never copies.
    """
    batch, heads, tokens, _ = like.shape
    _, head, token, _ = like.stride()
    if head < token:
        return like.new_empty((batch, tokens, heads, dim)).transpose(1, 2)
    return like.new_empty((batch, heads, tokens, dim))


def empty_rows(query: Tensor, *before: int) -> Tensor:
    """Return memory for a number of each row, (*before, B, Hq, Nq) in float32."""
    return query.new_empty((*before, *query.shape[:3]), dtype=torch.float32)


def _readable(x: Tensor) -> Tensor:
    """Return x, or a copy if entries of its last dim do not lie side by side."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _tokens(x: Tensor) -> tuple[int, ...]:
    batch, head, token, _ = x.stride()
    return x.data_ptr(), batch, head, token


def _on_scores(x: Tensor | None, *, learnt: bool = False) -> Tensor | None:
    """Return a mask or addition as kernels read it. A kernel takes a stride of 0 for a dim of 1 of the gradient."""
    if x is None:
        return None
    if x.dtype == torch.float64:
        x = x.float()
    steps = [step for size, step in zip(x.shape, x.stride(), strict=True) if size != 1]
    scattered = x.shape[-1] != 1 and steps[-1] not in {0, 1}
    return x.contiguous() if scattered or (learnt and 0 in steps) else x


def _place(x: Tensor | None) -> tuple[int, ...] | None:
    if x is None:
        return None
    steps = (0 if size == 1 else step for size, step in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), DTYPES.get(x.dtype, 0), *steps


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _sinks(tensors: Tensors) -> Tensor | None:
    return None if tensors.sinks is None else tensors.sinks.float().contiguous()


def call_kernel(
    kernel: int,
    what: int,
    work: Work,
    seed: int,
    tokens: tuple[Tensor | None, ...],
    on_scores: tuple[Tensor | None, ...],
    pointers: tuple[Tensor | None, ...],
    threads: int,
) -> None:
    """Run a kernel on the tensors of AttentionCall in types.h. The caller holds every tensor until this returns.

    Args:
        kernel: its number.
        what: FORWARD, BACKWARD or FEW.
        work: what it reads beside tensors.
        seed: of dropout.
        tokens: query, key, value, out, and of out, query, key and value the gradients.
        on_scores: mask, first and second addition.
        pointers: d_first, d_second, sinks, d_sinks, stats, lse and d_lse.
        threads: how many work.
    """
    query, key, value, *_ = tokens
    assert query is not None
    assert key is not None
    assert value is not None
    batch, heads, queries, dim = query.shape
    sizes = (batch, heads, key.shape[1], queries, key.shape[2], dim, value.shape[3])
    module = native()
    assert module is not None
    module.attention(
        kernel,
        what,
        DTYPES[query.dtype],
        sizes,
        tuple([None if x is None else _tokens(x) for x in tokens]),
        _NONE if on_scores == _NONE else tuple([_place(x) for x in on_scores]),
        tuple([_address(x) for x in pointers]),
        work.low,
        work.high,
        work.scale,
        work.softcap,
        work.temperature,
        work.dropout,
        seed,
        tuple(work.options),
        threads,
    )


def _kernel(work: Work) -> int:
    module = native()
    assert module is not None
    number: int = module.find_attention(work.map)
    return number


_NONE = (None, None, None)


def forward(tensors: Tensors, seed: int, work: Work, out: Tensor, lse: Tensor | None, stats: Tensor | None) -> None:
    """Write out, lse if asked for, and what backwards reads of each row if it will run."""
    query, key, value = _readable(tensors.query), _readable(tensors.key), _readable(tensors.value)
    on_scores: tuple[Tensor | None, ...] = (tensors.mask, tensors.first, tensors.second)
    if on_scores != _NONE:
        on_scores = tuple([_on_scores(x) for x in on_scores])
    tokens = (query, key, value, out, None, None, None, None)
    pointers = (None, None, _sinks(tensors), None, stats, lse, None)
    what = FEW if work.few else FORWARD
    call_kernel(_kernel(work), what, work, seed, tokens, on_scores, pointers, torch.get_num_threads())


def empty_gradients(tensors: Tensors, needs: tuple[bool, bool, bool]) -> list[Tensor]:
    """Return memory for the gradients of sinks and additions, of no entries where `needs` says no."""
    query, found = tensors.query, []
    for x, need in zip((tensors.sinks, tensors.first, tensors.second), needs, strict=True):
        found.append(query.new_empty(0) if x is None or not need else query.new_empty(x.shape, dtype=x.dtype))
    return found


def _sums(x: Tensor | None, *, need: bool) -> Tensor | None:
    """Return zeros to add an addition's gradient to."""
    return x.new_zeros(x.shape, dtype=torch.float32) if x is not None and need else None


def backward(
    d_out: Tensor | None,
    d_lse: Tensor | None,
    tensors: Tensors,
    out: Tensor,
    stats: Tensor,
    seed: int,
    needs: tuple[bool, bool, bool],
    work: Work,
) -> tuple[Tensor, ...]:
    """Return the gradients of query, key and value, then those of sinks and additions as `empty_gradients` has them."""
    query, key, value = _readable(tensors.query), _readable(tensors.key), _readable(tensors.value)
    d_out = torch.zeros_like(out) if d_out is None else _readable(d_out)
    d_lse = None if d_lse is None or not work.lse else d_lse.contiguous()
    d_tokens = [empty_tokens(x, x.shape[3]) for x in (query, key, value)]
    additions = [_on_scores(x, learnt=need) for x, need in zip(tensors[5:], needs[1:], strict=True)]
    sums = [_sums(x, need=need) for x, need in zip(additions, needs[1:], strict=True)]
    sinks = _sinks(tensors)
    d_sinks = query.new_empty(query.shape[:2], dtype=torch.float32) if needs[0] else None
    pointers = (*sums, sinks, d_sinks, stats, None, d_lse)
    tokens = (query, key, value, out, d_out, *d_tokens)
    on_scores = (_on_scores(tensors.mask), *additions)
    call_kernel(_kernel(work), BACKWARD, work, seed, tokens, on_scores, pointers, torch.get_num_threads())
    found = [None if d_sinks is None else d_sinks.sum(0), *sums]
    learnt = zip(empty_gradients(tensors, needs), found, strict=True)
    return (*d_tokens, *(like if x is None else x.to(like.dtype) for like, x in learnt))
