"""Calls of the kernel of the linear cross-entropy: tensors as addresses, results in new memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from manymax.kernels.attention_call import DTYPES
from manymax.kernels.native import native

FEWEST_CLASSES = 256  # below, threads have too little to share, and torch's own products are as fast


class Inputs(NamedTuple):
    """What the kernel reads."""

    input: Tensor  # (N, d)
    rows: Tensor  # (C, d)
    bias: Tensor | None  # (C,)
    weight: Tensor | None  # (C,)
    target: Tensor  # int64 (N,), below 0 for none; or float32 probabilities (N, C)
    label_smoothing: float
    softcap: float | None
    lse_penalty: float
    filter_eps: float
    chunk_size: int | None


class Results(NamedTuple):
    """What it writes; gradients of the rows and the bias in float32."""

    losses: Tensor  # (N,), float32
    lse: Tensor
    d_input: Tensor | None = None
    d_rows: Tensor | None = None
    d_bias: Tensor | None = None


def serves(x: Inputs) -> bool:
    """Return whether the kernel can take a call."""
    return (
        not torch.compiler.is_compiling()  # a compiled call traces the plain chunks
        and native() is not None
        and x.input.device.type == x.rows.device.type == "cpu"
        and x.input.dtype in DTYPES
        and len(x.rows) >= FEWEST_CLASSES
        and x.target.dtype in {torch.int64, torch.float32}
    )


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 and x.stride(0) >= x.shape[-1] else x.contiguous()


def _float32(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32).contiguous()


def cross_entropy(
    x: Inputs,
    d_losses: Tensor | None = None,
    d_lse: Tensor | None = None,
    needs: tuple[bool, bool, bool] = (False, False, False),
) -> Results:
    """Return losses and lse of all tokens and, given their gradients (N,), those of input, rows and bias."""
    source, rows = _side_by_side(x.input), _side_by_side(x.rows)
    bias, weight, d_losses, d_lse = (_float32(one) for one in (x.bias, x.weight, d_losses, d_lse))
    target = x.target.contiguous()
    losses, lse = torch.empty(2, len(source), dtype=torch.float32)
    d_input = source.new_empty(source.shape) if needs[0] else None
    d_rows = torch.zeros(rows.shape, dtype=torch.float32) if needs[1] else None
    d_bias = torch.zeros(len(rows), dtype=torch.float32) if needs[2] and bias is not None else None
    soft = target.is_floating_point()
    tensors = (source, rows, bias, weight, None if soft else target, target if soft else None, losses, lse)
    module = native()
    assert module is not None
    module.cross_entropy(
        DTYPES[source.dtype],
        (len(source), len(rows), source.shape[1], source.stride(0), rows.stride(0)),
        tuple([0 if t is None else t.data_ptr() for t in (*tensors, d_losses, d_lse, d_input, d_rows, d_bias)]),
        x.label_smoothing,
        x.softcap or 0.0,
        x.lse_penalty,
        x.filter_eps,
        x.chunk_size or 0,
        torch.get_num_threads(),
    )
    return Results(losses, lse, d_input, d_rows, d_bias)
