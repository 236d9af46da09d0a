"""Attention by the compiled kernels for CPUs: tiles that stay in cache, with the map inside."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from manymax.attention.dense.call import Call
from manymax.attention.dense.visibility import Band
from manymax.kernels import attention, rows
from manymax.kernels.attention_call import DTYPES, FAR, Tensors, Work
from manymax.maps.rule import Rule

# Queries of a key head up to which the kernel for few queries serves: the other one took 1.1 to 4.8 times as long for
# 4, 0.7 to 3.2 times for 8, 0.5 to 2.0 times for 16 (128 to 8192 keys, float32 and bfloat16, two threads).
FEW = 8


def refusal(call: Call) -> str | None:
    """Return why this backend cannot serve a call, or None."""
    inputs = call.inputs
    query, key, value = inputs.query, inputs.key, inputs.value
    if not query.is_cpu:
        return f"it runs on the CPU, not on {query.device}"
    if query.dtype not in DTYPES:
        return f"it takes float32, bfloat16 and float16, not {query.dtype}"
    if call.options.return_weights:
        return "return_weights asks for the full matrix, which it never holds"
    kernel = _kernel(call.options.rule)
    if isinstance(kernel, str):
        return kernel
    if 0 in query.shape or 0 in key.shape or 0 in value.shape:
        return "there is nothing to compute with an empty tensor"
    if not torch.compiler.is_compiling() and attention.opaque(inputs.tensors()):
        return "it reads memory, and there is none to read under a transform or in a subclass of torch.Tensor"
    return None


def _kernel(rule: Rule) -> tuple[str, float, tuple[float, ...]] | str:
    """Return a rule's kernel, temperature and options as numbers, or why there is none."""
    learnt = [name for name, value in rule.options().items() if isinstance(value, Tensor)]
    if learnt:
        return f"the map's {', '.join(learnt)} is a tensor, to which its kernels hand no gradient back"
    return _find(rule) if torch.compiler.is_compiling() else _remembered(rule)


def _find(rule: Rule) -> tuple[str, float, tuple[float, ...]] | str:
    rule = rule.simplest()
    name = rule.row_kernel
    if name is None:
        return f"there is no kernel for {type(rule).__name__}"
    options = {key: value for key, value in rule.options().items() if key != "temperature"}
    refused: str | None = attention.refusal(name, tuple(options.items()))
    if refused is not None:
        return refused
    temperature, *numbers = rows.encode(name, rule.options())
    return name, temperature, tuple(numbers)


_remembered = functools.lru_cache(maxsize=64)(_find)


def _bounds(band: Band) -> tuple[int, int]:
    return -FAR if band.low is None else band.low, FAR if band.high is None else band.high


def run(call: Call) -> tuple[Tensor, ...]:
    """Return out, and the log of the denominators where asked for."""
    inputs, options = call.inputs, call.options
    kernel = _kernel(options.rule)
    assert not isinstance(kernel, str)
    name, temperature, numbers = kernel
    # Field by field: torch 2.6 compiles neither slices nor properties of a named tuple.
    tensors = Tensors(inputs.query, inputs.key, inputs.value, inputs.mask, inputs.sinks, *inputs.additions)
    count = inputs.query.shape[2] * (inputs.query.shape[1] // inputs.key.shape[1])
    few = count <= FEW and not attention.learns(tensors)
    low, high = _bounds(options.band)
    work = Work(
        name,
        numbers,
        temperature,
        options.scale,
        options.softcap or 0.0,
        options.dropout_p,
        low,
        high,
        options.return_lse,
        few,
    )
    out, lse = attention.attend(tensors, work)
    return (out, lse) if options.return_lse and lse is not None else (out,)
