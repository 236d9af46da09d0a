"""Calls of the compiled kernels that claims measure; `kernels/cpu/kernels.h` lists them as studies."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from manymax.kernels.attention_call import FAR, FEW, FORWARD, Work, call_kernel
from manymax.kernels.native import native, status


def kernels() -> ModuleType:
    """Return the compiled module.

    Raises:
        ImportError: if there is none, saying why.
    """
    module = native()
    if module is None:
        raise ImportError(status())
    return module


def on_rows(study: str, x: Tensor, out: Tensor, *options: float, threads: int = 1) -> Tensor:
    """Run a study of rows on the last dim of float32 tensors, and return `out`."""
    if not (x.dtype == out.dtype == torch.float32 and x.is_contiguous() and out.is_contiguous()):
        raise ValueError(f"x: expected contiguous float32 tensors, got {x.dtype} and {out.dtype}")
    n = x.shape[-1]
    kernels().study_rows(study, x.data_ptr(), out.data_ptr(), x.numel() // n, n, options, threads)
    return out


def attend(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *options: float,
    causal: bool = False,
    decode: bool = False,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    stats: Tensor | None = None,
    threads: int = 1,
) -> Tensor:
    """Run an attention kernel with the scale D^(-1/2) and return its output.

    Args:
        name: a study, or "softmax" for the library's own kernel.
        query: (B, Hq, Nq, D).
        key: (B, Hk, Nk, D).
        value: (B, Hk, Nk, Dv).
        *options: what the study reads.
        causal: whether query i sees the keys up to i alone.
        decode: whether to run the kernel for few queries.
        out: (B, Hq, Nq, Dv), written; None makes one.
        lse: (B, Hq, Nq) in float32, written.
        stats: (2, B, Hq, Nq) in float32, written: two numbers a row, or one for (B, Hq, Nq).
        threads: how many work.
    """
    dim = query.shape[3]
    if out is None:
        out = query.new_empty((*query.shape[:3], value.shape[3]))
    module = kernels()
    number = module.find_attention(name) if name == "softmax" else module.find_study(name)
    work = Work(
        name,
        options,
        temperature=1.0,
        scale=dim**-0.5,
        softcap=0.0,
        dropout=0.0,
        low=-FAR,
        high=0 if causal else FAR,
        lse=lse is not None,
        few=decode,
    )
    tokens = (query, key, value, out, None, None, None, None)
    pointers = (None, None, None, None, stats, lse, None)
    call_kernel(number, FEW if decode else FORWARD, work, 0, tokens, (None, None, None), pointers, threads)
    return out
