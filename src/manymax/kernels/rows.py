"""Row kernels: weights of scores along one dim, on the CPU. `supports` says whether they can, `weights` does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from manymax.kernels import ops
from manymax.kernels.native import native, status

Reference = Callable[[Tensor], Tensor]
_apply: Any = ops.RowsFunction.apply  # untyped in torch

# Options of each map beside the temperature, with their defaults, in the order in which the kernel reads them. None is
# a default that the kernel works out by itself; it travels as NaN.
OPTIONS: dict[str, dict[str, float | None]] = {
    "clipped_softmax": {"zeta": 1.0, "gamma": -0.03},
    "entmax": {"alpha": 1.5},
    "entmax15": {},
    "log_softmax": {},
    "log_stablemax": {},
    "logsumexp": {},
    "power_softmax": {"p": 4, "eps": 0.0, "length_agnostic": False},
    "relu": {},
    "sigmoid": {"bias": None},
    "softmax": {},
    "softmax1": {},
    "softplus": {},
    "sparsemax": {},
    "spherical_softmax": {"eps": 1e-5},
    "squared_relu": {},
    "stablemax": {},
    "taylor_softmax": {"order": 2},
    "topk_softmax": {"k": 8},
}
# In float64, whose short rows the kernels take one by one, PyTorch's own forms are quicker below these lengths. In the
# other dtypes rows of every length pay: 4096 rows of 2 to 256 float32 scores went 1.1 to 15 times as fast forwards and
# 0.8 to 7.5 times forwards and backwards (one thread of a busy machine; the one below 1 is sigmoid on rows of 2).
# entmax above an alpha of 2 halves a bracket row by row: twice PyTorch's time on rows of 2, less than it from 8 on.
SHORTEST_IN_FLOAT64 = {"log_softmax": 8, "relu": 64, "sigmoid": 256, "squared_relu": 16}
HIGHEST_POWER = 64  # beyond it a power of 1/2, how far a scale may be off, leaves float32
HIGHEST_ALPHA = 3  # of 16-bit weights: their slopes, a power of 2 - alpha, are as exact as they are up to here


def supports(name: str, options: Mapping[str, Any], x: Tensor, dim: int = -1, mask: Tensor | None = None) -> str | None:
    """Return None if `weights` serves this call, else the reason why it does not.

    Args:
        name: the map's name.
        options: the map's options, temperature included; those left out have their defaults.
        x: scores.
        dim: the dim to normalise along.
        mask: bool, broadcastable to x, True = keep.
    """
    if native() is None:
        return status()
    if name not in OPTIONS:
        return f"there is no row kernel for {name}"
    for key, value in options.items():
        if key != "temperature" and key not in OPTIONS[name]:
            return f"the row kernel of {name} has no option {key}"
        if not isinstance(value, (int, float)) and value is not None:
            return f"the row kernel of {name} takes {key} as a number, not as {type(value).__name__}"
    if max(options.get("p", 0), options.get("order", 0)) > HIGHEST_POWER:
        return f"the row kernel of {name} takes powers up to {HIGHEST_POWER}"
    alpha = options.get("alpha", 1.5)
    if not alpha > 1 or (alpha > HIGHEST_ALPHA and x.dtype in {torch.bfloat16, torch.float16}):
        return f"the row kernel of {name} takes an alpha above 1, and up to {HIGHEST_ALPHA} in 16 bits"
    return _refuses(x, dim, mask)


def _refuses(x: Tensor, dim: int, mask: Tensor | None) -> str | None:
    if x.device.type != "cpu":
        return f"row kernels run on the CPU, not on {x.device}"
    if x.dtype not in ops.DTYPES:
        return f"row kernels take float32, float64, bfloat16 and float16, not {x.dtype}"
    if x.is_neg():
        return "row kernels read numbers, not those that a view negates"
    if x.layout != torch.strided or not 0 < x.dim() <= ops.MAX_DIMS:
        return f"row kernels take strided tensors of 1 to {ops.MAX_DIMS} dims"
    if not -x.dim() <= dim < x.dim() or x.numel() == 0:
        return "row kernels take a dim that exists and tensors that are not empty"
    if mask is not None and (mask.dtype != torch.bool or mask.device != x.device):
        return "row kernels take a bool mask on the CPU"
    return None


def pays(name: str, options: Mapping[str, Any], x: Tensor, dim: int = -1, mask: Tensor | None = None) -> bool:
    """Return whether the kernel should serve this call in place of plain PyTorch: it can, and rows are long enough.

    What a compiler, transform, mode or tracer watches stays in plain PyTorch, which they see into; so do tangents.
    """
    return (
        ops.is_plain(x, mask)
        and supports(name, options, x, dim, mask) is None
        and (x.dtype != torch.float64 or x.shape[dim] >= SHORTEST_IN_FLOAT64.get(name, 0))
    )


def writes_into(name: str, out: Tensor, x: Tensor, dim: int, mask: Tensor | None) -> bool:
    """Return whether `weights` can take this `out`: nothing to resize, convert or differentiate."""
    fits = out.dtype == x.dtype and out.device == x.device and list(out.shape) == ops.result_shape(name, x, dim)
    if not fits or not ops.is_plain(out, None) or out.is_neg() or not _lies_apart(out):
        return False
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        return False
    if out.data_ptr() == x.data_ptr() and out.stride() == x.stride():
        return name not in ops.REDUCTIONS
    memory = out.untyped_storage().data_ptr()
    return all(memory != other.untyped_storage().data_ptr() for other in (x, mask) if other is not None)


def _lies_apart(x: Tensor) -> bool:
    """Return whether no two entries of x share memory, as far as strides tell."""
    span = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride < span:
            return False
        span += (size - 1) * stride
    return True


def encode(name: str, options: Mapping[str, Any]) -> list[float]:
    """Return the temperature and the map's options as the numbers that its kernel reads."""
    values = [options.get(key, default) for key, default in OPTIONS[name].items()]
    return [
        float(options.get("temperature", 1.0)),
        *(float("nan") if value is None else float(value) for value in values),
    ]


def weights(
    name: str,
    options: Mapping[str, Any],
    x: Tensor,
    dim: int = -1,
    mask: Tensor | None = None,
    *,
    out: Tensor | None = None,
    reference: Reference | None = None,
) -> Tensor:
    """Return the map's weights of x along dim; the caller has asked `supports`.

    Args:
        name: the map's name.
        options: as in `supports`.
        x: scores.
        dim: the dim to normalise along.
        mask: bool, broadcastable to x, True = keep.
        out: where to write; x itself is allowed. Then nothing may require a gradient, as in PyTorch.
        reference: the same map in plain PyTorch, as a function of x. It serves second
            derivatives of the maps whose kernels go backwards from the scores.

    Raises:
        ValueError: if `out` has another shape or dtype than the result, or would need a gradient.
    """
    numbers = encode(name, options)
    if out is not None:
        ops.check_out(out, x, ops.result_shape(name, x, dim))
        if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
            raise ValueError("out: expected no argument that requires a gradient, as in torch.softmax")
        if ops.is_plain(x, mask):
            ops.forward(x, name, numbers, dim, mask, out)
        else:
            torch.ops.manymax.rows_out(x, name, numbers, dim, mask, out=out)
        return out
    if not ops.is_plain(x, mask):
        result: Tensor = torch.ops.manymax.rows(x, name, numbers, dim, mask)
        return result
    if torch.is_grad_enabled() and x.requires_grad:
        differentiable: Tensor = _apply(x, name, numbers, dim, mask, reference)
        return differentiable
    return ops.forward(x, name, numbers, dim, mask)
