"""Attention on the CPU: custom ops over the kernels for compilers, export and modes, and the short way for eager calls.

The dispatcher costs 5 us a call from Python and its autograd more, where attention over 64 tokens takes 30 us in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad

from manymax.kernels import attention_call, rows
from manymax.kernels.attention_call import Tensors, Work, empty_gradients, empty_rows, empty_tokens
from manymax.kernels.native import native, status
from manymax.kernels.ops import functorch_level, is_batched, is_plain

_KINDS = (Tensor, torch.nn.Parameter)
_TRACED = (FakeTensor, FunctionalTensor)  # compilers' stand-ins, which know the op
_PROBE = torch.zeros(1)
_TENSORS = "Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? sinks, Tensor? first, Tensor? second"
_WORK = (
    "Tensor? seed, str map, float[] options, float temperature, float scale, float softcap, float dropout, "
    "SymInt low, SymInt high, bool lse, bool few"
)
_library: Any = torch.library.Library  # untyped in torch
_LIBRARY: Any = _library("manymax", "FRAGMENT")
_LIBRARY.define(f"attention({_TENSORS}, {_WORK}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    f"attention_backward(Tensor? d_out, Tensor? d_lse, {_TENSORS}, Tensor out, Tensor stats, bool[] needs, {_WORK}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def refusal(name: str, options: tuple[tuple[str, float | None], ...]) -> str | None:
    """Return None if there is a kernel for this map and these options, else the reason why there is none.

    Args:
        name: the map's name.
        options: the map's options with their values, none of them a tensor.
    """
    module = native()
    if module is None:
        return status()
    if module.find_attention(name) < 0:
        return f"there is no attention kernel for {name}"
    if dict(options).get("length_agnostic"):
        return f"the attention kernel of {name} has no length_agnostic form"
    refused = rows.supports(name, dict(options), _PROBE)  # attention reads the same options as rows do
    return None if refused is None else refused.replace("row kernel", "kernel")


def plain(tensors: Sequence[Tensor | None]) -> bool:
    """Return whether this is an eager call on ordinary tensors: no mode, tracer or negated view goes along."""
    return is_plain(_PROBE, None) and all(x is None or (type(x) in _KINDS and not x.is_neg()) for x in tensors)


def opaque(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether there is no memory to read: under a transform or with a tangent, or in a subclass of Tensor."""
    if functorch_level() is not None or forward_ad._current_level >= 0:  # noqa: SLF001
        return True
    return any(x is not None and type(x) not in _KINDS and not isinstance(x, _TRACED) for x in tensors)


def learns(tensors: Tensors) -> bool:
    """Return whether a gradient may be asked for."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def attend(tensors: Tensors, work: Work) -> tuple[Tensor, Tensor | None]:
    """Return out, and lse if asked for; the caller has asked `refusal`, and nothing is empty."""
    if not plain(tensors):
        drawn = torch.randint(2**62, ()) if work.dropout > 0 else None
        out, lse, _ = torch.ops.manymax.attention(*tensors, drawn, *work)
        return out, lse
    seed = int(torch.randint(2**62, ()).item()) if work.dropout > 0 else 0
    if learns(tensors):
        results: tuple[Tensor, Tensor | None] = _apply(work, seed, *tensors)
        return results
    out, lse = _make(tensors, work)
    attention_call.forward(tensors, seed, work, out, lse, None)
    return out, lse


def _make(tensors: Tensors, work: Work) -> tuple[Tensor, Tensor | None]:
    """Return memory for out, and for lse if asked for."""
    return empty_tokens(tensors.query, tensors.value.shape[3]), empty_rows(tensors.query) if work.lse else None


class _Attention(torch.autograd.Function):
    """The kernels with gradients, for eager calls."""

    @staticmethod
    def forward(ctx: Any, work: Work, seed: int, *given: Any) -> tuple[Tensor, Tensor | None]:
        """Run the kernel and keep what its backward reads."""
        tensors = Tensors(*given)
        (out, lse), stats = _make(tensors, work), empty_rows(tensors.query, 2)
        attention_call.forward(tensors, seed, work, out, lse, stats)
        ctx.work, ctx.seed = work, seed
        ctx.save_for_backward(*tensors, out, stats)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the backward kernel; the op refuses second derivatives, and serves a batch of gradients one by one."""
        *given, out, stats = ctx.saved_tensors
        needs = ctx.needs_input_grad[6:]
        tensors, work = Tensors(*given), ctx.work
        grads = [d for d in (d_out, d_lse) if d is not None]
        if torch.is_grad_enabled() or not plain(grads) or any(is_batched(d) for d in grads):
            seed = torch.tensor(ctx.seed) if work.dropout > 0 else None
            found = torch.ops.manymax.attention_backward(d_out, d_lse, *tensors, out, stats, needs, seed, *work)
        else:
            found = attention_call.backward(d_out, d_lse, tensors, out, stats, ctx.seed, needs, work)
        return None, None, *_in_places(found, needs)


_apply: Any = _Attention.apply  # untyped in torch


def _in_places(found: tuple[Tensor, ...], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the order of `Tensors`; the mask has none."""
    d_query, d_key, d_value, *rest = found
    return d_query, d_key, d_value, None, *(x if need else None for x, need in zip(rest, needs, strict=True))


def _seed(drawn: Tensor | None) -> int:
    return 0 if drawn is None else int(drawn.item())


def _op(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    tensors, seed, work = Tensors(*args[:7]), args[7], Work(*args[8:])
    out, lse, stats = _fake(*args)
    attention_call.forward(tensors, _seed(seed), work, out, lse if work.lse else None, stats)
    return out, lse, stats


def _fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return memory; an lse that is not asked for is empty, since an op returns tensors."""
    tensors, work = Tensors(*args[:7]), Work(*args[8:])
    out, lse = _make(tensors, work)
    return out, tensors.query.new_empty(0) if lse is None else lse, empty_rows(tensors.query, 2)


def _op_backward(d_out: Tensor | None, d_lse: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    tensors, (out, stats, needs, seed) = Tensors(*args[:7]), args[7:11]
    return attention_call.backward(d_out, d_lse, tensors, out, stats, _seed(seed), needs, Work(*args[11:]))


def _fake_backward(d_out: Tensor | None, d_lse: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    del d_out, d_lse
    tensors, needs = Tensors(*args[:7]), args[9]
    return (*(empty_tokens(x, x.shape[3]) for x in tensors[:3]), *empty_gradients(tensors, needs))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, seed = inputs[:8]
    out, _, stats = output
    ctx.work = inputs[8:]
    ctx.save_for_backward(*tensors, out, stats, seed)
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    *tensors, out, stats, seed = ctx.saved_tensors
    needs = ctx.needs_input_grad[4:7]
    found = torch.ops.manymax.attention_backward(d_out, d_lse, *tensors, out, stats, needs, seed, *ctx.work)
    return *_in_places(found, needs), *(None,) * 11


def _refuse_second(ctx: Any, *gradients: Tensor) -> Any:
    del ctx, gradients
    raise RuntimeError("backend 'cpu' gives no second derivatives; ask attention for backend='reference'")


_LIBRARY.impl("attention", _op, "CPU")
_LIBRARY.impl("attention_backward", _op_backward, "CPU")
torch.library.register_fake("manymax::attention", _fake, lib=_LIBRARY)
torch.library.register_fake("manymax::attention_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd("manymax::attention", _autograd, setup_context=_setup_context, lib=_LIBRARY)
torch.library.register_autograd("manymax::attention_backward", _refuse_second, lib=_LIBRARY)
