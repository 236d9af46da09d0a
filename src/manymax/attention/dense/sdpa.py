"""torch's own fused attention, where it computes exactly what was asked.

It knows softmax, a mask and top-left causality. The rest is put in those terms. A sink is one more key, first, whose
value is zero and which is orthogonal to every query except along one more coordinate, where the query holds the sink;
softmax1's 1 is a key of zeros. Both leave causality to torch by a first query that sees the first key alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from manymax.attention.dense.call import Call, Options
from manymax.attention.dense.inputs import Inputs
from manymax.attention.dense.visibility import Band, visible_block
from manymax.maps.rule import compute_dtype
from manymax.maps.softmax import Softmax
from manymax.maps.softmax1 import Softmax1

TOP_LEFT = Band(high=0)


def refusal(call: Call) -> str | None:
    """Return why this backend cannot serve a call, or None."""
    inputs, options = call.inputs, call.options
    dtype = inputs.query.dtype
    if type(options.rule) not in {Softmax, Softmax1}:
        return "torch computes softmax alone (and softmax1 through one key of zeros)"
    if isinstance(options.rule.temperature, Tensor):
        return "the temperature is a tensor, and torch takes a number"
    if options.softcap is not None:
        return "torch has no softcap"
    if options.return_weights or options.return_lse:
        return f"torch does not return the {'weights' if options.return_weights else 'log-sum-exp'}"
    if dtype.itemsize == 2 and inputs.additions:
        same = len(inputs.additions) == 1 and inputs.additions[0].dtype == dtype
        if not same or options.rule.temperature != 1:
            return f"torch would round what is added to the scores to {dtype}"
    return None


def is_fused(call: Call) -> bool:
    """Return whether torch serves it without storing weights; on a CPU, dropout and learnt masks make it store them."""
    if call.inputs.query.device.type != "cpu":
        return True
    learnt = torch.is_grad_enabled() and any(addition.requires_grad for addition in call.inputs.additions)
    return call.options.dropout_p == 0 and not learnt


def makes_mask(call: Call) -> bool:
    """Return whether torch must be given the causality or the window as a mask of all pairs."""
    return call.options.band != Band() and not _is_native(call.inputs, call.options)


def has_extra_key(call: Call) -> bool:
    """Return whether it takes one more key."""
    return call.inputs.sinks is not None or isinstance(call.options.rule, Softmax1)


def _is_native(inputs: Inputs, options: Options) -> bool:
    """Return whether the call is causal as torch understands it, and has no mask, which torch would not combine."""
    if inputs.mask is not None or inputs.additions:
        return False
    return options.band == TOP_LEFT


def _decided(condition: bool) -> bool:
    """Return a plain bool: in code compiled for all shapes, comparing them makes a symbol, which torch refuses."""
    return True if condition else False  # noqa: SIM210, the branch decides


def _mask(inputs: Inputs, options: Options, *, extra_key: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return torch's mask, and which rows are empty: those are opened, since some of torch's kernels make NaN of them.

    With an extra key, which all queries see, no row is empty.
    """
    rows, columns = (slice(0, size) for size in inputs.shape[2:])
    visible = visible_block(inputs, options.band, rows, columns)
    if visible is None:
        return None, None
    visible = visible.expand(*visible.shape[:-1], columns.stop)
    empty = None if extra_key else ~visible.any(-1, keepdim=True)
    if not inputs.additions:
        return F.pad(visible, (1, 0), value=True) if empty is None else visible | empty, empty
    first, *rest = (addition.to(inputs.query.dtype) for addition in inputs.additions)
    added = sum(rest, first) / options.rule.temperature
    if empty is None:
        return F.pad(torch.where(visible, added, -torch.inf), (1, 0)), None
    return torch.where(visible, added, torch.where(empty, 0.0, -torch.inf).to(added.dtype)), empty


def _extra_score(inputs: Inputs, options: Options) -> Tensor | None:
    """Return the extra key's score (Hq,), after the temperature; None if it is 0 and needs no coordinate."""
    if inputs.sinks is None:
        return None
    score = inputs.sinks.to(compute_dtype(inputs.query.dtype)) / options.rule.temperature
    if isinstance(options.rule, Softmax1):  # exp(score) + 1 is the exponential of one score
        return torch.logaddexp(score, torch.zeros_like(score))
    return score


def _extend(query: Tensor, key: Tensor, score: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Give queries and keys two coordinates that only the first key has, where their product is score / scale.

    In half precision a score does not fit one coordinate: the second one holds what rounding took from the first. The
    key's part is a power of two near 1 / scale, so that it is exact and the query's part is about the score.
    """
    power = 2.0 ** min(max(round(-math.log2(scale)), -14), 15)
    lowest = torch.finfo(query.dtype).min / 4  # stands for -inf, since 0 * inf is NaN
    wanted = (score / (scale * power)).clamp(min=lowest)[:, None].expand(query.shape[:3])  # sums gradients in float32
    coarse = wanted.to(query.dtype)
    fine = (wanted - coarse).to(query.dtype)
    query = torch.cat([query, coarse.unsqueeze(-1), fine.unsqueeze(-1)], -1)
    key = F.pad(key, (0, 2))
    first = F.pad(key.new_full((*key.shape[:2], 1, 2), power), (query.shape[-1] - 2, 0))
    return query, torch.cat([first, key[:, :, 1:]], 2)


def run(call: Call) -> tuple[Tensor, ...]:
    """Return out."""
    inputs, options = call.inputs, call.options
    query, key, value = inputs.query, inputs.key, inputs.value
    temperature = options.rule.temperature
    assert not isinstance(temperature, Tensor)
    scale = options.scale / temperature
    if scale <= 0:  # torch takes its square root
        query, scale = (query * 0, 1.0) if scale == 0 else (-query, -scale)
    extra_key, is_causal = has_extra_key(call), _decided(_is_native(inputs, options))
    mask, empty = (None, None) if is_causal else _mask(inputs, options, extra_key=extra_key)
    if extra_key:
        key, value = F.pad(key, (0, 0, 1, 0)), F.pad(value, (0, 0, 1, 0))
        score = _extra_score(inputs, options)
        if score is not None:
            query, key = _extend(query, key, score, scale)
        if is_causal:
            query = F.pad(query, (0, 0, 1, 0))
    width = max(query.shape[-1], value.shape[-1])  # the fused kernel for CPUs wants one width
    query, key, value = (F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x for x in (query, key, value))
    out = F.scaled_dot_product_attention(
        query, key, value, mask, options.dropout_p, is_causal, scale=scale, enable_gqa=_decided(inputs.groups != 1)
    )
    out = out[:, :, int(extra_key and is_causal) :, : inputs.value.shape[-1]]
    return (out if empty is None else out.masked_fill(empty, 0),)
