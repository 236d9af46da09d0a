"""The formula, in plain PyTorch: the oracle that every other backend is tested against. It stores all weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from manymax.attention.dense.call import Call, Options
from manymax.attention.dense.inputs import Inputs
from manymax.attention.dense.visibility import visible_block
from manymax.maps.ratio import Ratio
from manymax.maps.rule import as_rows, compute_dtype, reference


def refusal(call: Call) -> str | None:
    """Return why this backend cannot serve a call: it serves all."""
    del call
    return None


def _per_query_head(x: Tensor, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """Repeat keys or values (B, Hk, Nk, d) for each query head that reads them, in the dtype to compute in."""
    return x.to(dtype) if inputs.groups == 1 else x.to(dtype).repeat_interleave(inputs.groups, 1)


def _scores(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor | None]:
    """Return scores (B, Hq, Nq, Nk) in the dtype to compute in, and which of them are visible; None is all."""
    dtype = compute_dtype(inputs.query.dtype)
    scores = options.scale * (inputs.query.to(dtype) @ _per_query_head(inputs.key, inputs, dtype).mT)
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    for addition in inputs.additions:
        scores = scores + addition.to(dtype)
    rows, columns = (slice(0, size) for size in inputs.shape[2:])
    visible = visible_block(inputs, options.band, rows, columns)
    if inputs.sinks is None:
        return scores, visible
    # One more entry in each row, first, to which no value belongs.
    scores = torch.cat([inputs.sinks.to(dtype)[None, :, None, None].expand(*scores.shape[:3], 1), scores], -1)
    return scores, None if visible is None else F.pad(
        visible.expand(*visible.shape[:-1], columns.stop), (1, 0), value=True
    )


def _log_total(rule: Ratio, scores: Tensor, visible: Tensor | None) -> Tensor:
    """Return the logarithm of each row's denominator, (B, Hq, Nq)."""
    if scores.shape[-1] == 0:  # a maximum over no keys does not exist; over one that is out of sight it does
        scores, visible = F.pad(scores, (0, 1)), torch.zeros(1, dtype=torch.bool, device=scores.device)
    rule, scores, visible = as_rows(rule, scores, -1, visible)
    return rule.log_total(scores, visible).squeeze(-1)


def run(call: Call) -> tuple[Tensor, ...]:
    """Return out, then the weights and the log of the denominators where asked for."""
    inputs, options, rule = call.inputs, call.options, call.options.rule
    scores, visible = _scores(inputs, options)
    weights = reference(rule, scores, -1, visible)[..., scores.shape[-1] - inputs.shape[-1] :]
    value = _per_query_head(inputs.value, inputs, scores.dtype)
    kept = F.dropout(weights, options.dropout_p) if options.dropout_p > 0 else weights
    dtype = inputs.query.dtype
    results = [(kept @ value).to(dtype)]
    if options.return_weights:
        results.append(weights.to(dtype))
    if options.return_lse:
        assert isinstance(rule, Ratio)
        results.append(_log_total(rule, scores, visible))
    return tuple(results)
