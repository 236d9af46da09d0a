"""The kernel of the linear cross-entropy: tensors as addresses, results in new memory, and a custom op of the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from manymax.kernels.attention import opaque, plain
from manymax.kernels.attention_call import DTYPES
from manymax.kernels.native import available, native

FEWEST_CLASSES = 256  # below, threads have too little to share, and torch's own products are as fast

_library: Any = torch.library.Library  # untyped in torch
_LIBRARY: Any = _library("manymax", "FRAGMENT")
_LIBRARY.define(
    "cross_entropy(Tensor input, Tensor rows, Tensor? bias, Tensor? weight, Tensor target, float label_smoothing, "
    "float? softcap, float lse_penalty, float filter_eps, int? chunk_size, Tensor? d_losses, Tensor? d_lse, "
    "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


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
    """What it writes; gradients of the rows and the bias in float32, or of bfloat16 rows rounded once, to bfloat16."""

    losses: Tensor  # (N,), float32
    lse: Tensor
    d_input: Tensor | None = None
    d_rows: Tensor | None = None
    d_bias: Tensor | None = None


def serves(x: Inputs) -> bool:
    """Return whether the kernel can take a call."""
    return (
        available()
        and (torch.compiler.is_compiling() or not opaque(x[:5]))
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
    """Return losses and lse of all tokens and, given their gradients (N,), those of input, rows and bias.

    Eager calls on plain tensors go straight to the kernel; compilers and modes see a custom op, which knows no
    gradients: the caller's autograd.Function asks for them.
    """
    if plain([*x[:5], d_losses, d_lse]):
        return _call(x, d_losses, d_lse, needs)
    losses, lse, *gradients = torch.ops.manymax.cross_entropy(*x, d_losses, d_lse, needs)
    present = (needs[0], needs[1], needs[2] and x.bias is not None)
    return Results(losses, lse, *(d if there else None for d, there in zip(gradients, present, strict=True)))


def _call(x: Inputs, d_losses: Tensor | None, d_lse: Tensor | None, needs: tuple[bool, bool, bool]) -> Results:
    source, rows = _side_by_side(x.input), _side_by_side(x.rows)
    bias, weight, d_losses, d_lse = (_float32(one) for one in (x.bias, x.weight, d_losses, d_lse))
    target = x.target.contiguous()
    losses, lse = (torch.empty(len(source), dtype=torch.float32) for _ in range(2))
    d_input = source.new_empty(source.shape) if needs[0] else None
    sums = torch.empty(rows.shape, dtype=torch.float32) if needs[1] else None
    narrow = torch.empty(rows.shape, dtype=rows.dtype) if needs[1] and rows.dtype == torch.bfloat16 else None
    d_bias = torch.empty(len(rows), dtype=torch.float32) if needs[2] and bias is not None else None
    soft = target.is_floating_point()
    tensors = (source, rows, bias, weight, None if soft else target, target if soft else None, losses, lse)
    module = native()
    assert module is not None
    module.cross_entropy(
        DTYPES[source.dtype],
        (len(source), len(rows), source.shape[1], source.stride(0), rows.stride(0)),
        tuple([0 if t is None else t.data_ptr() for t in (*tensors, d_losses, d_lse, d_input, sums, d_bias, narrow)]),
        x.label_smoothing,
        x.softcap or 0.0,
        x.lse_penalty,
        x.filter_eps,
        x.chunk_size or 0,
        torch.get_num_threads(),
    )
    return Results(losses, lse, d_input, sums if narrow is None else narrow, d_bias)


def _op(*args: Any) -> tuple[Tensor, ...]:
    *given, d_losses, d_lse, needs = args
    x = Inputs(*given)
    losses, lse, *gradients = _call(x, d_losses, d_lse, tuple(needs))
    none = losses.new_empty(0)
    return losses, lse, *(none.clone() if d is None else d for d in gradients)


def _fake(*args: Any) -> tuple[Tensor, ...]:
    *given, _, _, needs = args
    x = Inputs(*given)

    def number(*shape: int) -> Tensor:
        return x.input.new_empty(shape, dtype=torch.float32)

    d_input = x.input.new_empty(x.input.shape) if needs[0] else number(0)
    rows = x.rows.dtype if x.rows.dtype == torch.bfloat16 else torch.float32
    d_rows = x.rows.new_empty(x.rows.shape, dtype=rows) if needs[1] else number(0)
    d_bias = number(len(x.rows)) if needs[2] and x.bias is not None else number(0)
    return number(len(x.input)), number(len(x.input)), d_input, d_rows, d_bias


_LIBRARY.impl("cross_entropy", _op, "CPU")
torch.library.register_fake("manymax::cross_entropy", _fake, lib=_LIBRARY)
