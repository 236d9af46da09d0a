"""The linear recurrence on the CPU: custom ops over the kernels, and the short way for eager calls."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, get_num_threads, is_grad_enabled
from torch.autograd.graph import increment_version

from manymax.kernels import columns
from manymax.kernels.attention import opaque, plain
from manymax.kernels.attention_call import DTYPES
from manymax.kernels.linear_call import Tensors, empty_gradients, empty_results
from manymax.kernels.native import available, native, status
from manymax.kernels.ops import is_alone, is_batched

_TENSORS = "Tensor query, Tensor key, Tensor value, Tensor? log_decay, Tensor? beta, Tensor? initial_state"
_library: Any = torch.library.Library  # untyped in torch
_LIBRARY: Any = _library("manymax", "FRAGMENT")
_LIBRARY.define(f"recurrence({_TENSORS}, int chunk) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"recurrence_backward(Tensor? d_out, Tensor? d_final_state, {_TENSORS}, bool[] needs, int chunk) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def refusal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> str | None:
    """Return None if the kernels serve this call, else the reason why they do not; the shapes fit each other."""
    if not available():
        return status()
    given = (query, key, value, log_decay, beta, initial_state)
    present = [x for x in given if x is not None]
    if any(x.device.type != "cpu" for x in present):
        return "it takes tensors on the CPU"
    if query.dtype not in DTYPES or key.dtype != query.dtype or value.dtype != query.dtype:
        return "it takes query, key and value in one dtype, float32, bfloat16 or float16"
    if any(x.dtype != torch.float32 for x in present[3:]):
        return "it takes log_decay, beta and initial_state in float32"
    if beta is not None and log_decay is not None and log_decay.dim() == 4:
        return "the delta rule takes one decay a token, not one for each channel"
    if opaque(given):
        return "a transform, a tangent or a subclass of torch.Tensor leaves no memory to read"
    return None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    initial_state: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs and the final state of the recurrence; the caller has asked `refusal`.

    Additive: S_t = a_t S_{t-1} + k_t v_t^T with a_t = exp(log_decay_t); delta rule, where `beta` is given:
    S_t = a_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T; out_t = S_t^T q_t.

    Args:
        query: (B, H, N, Dk).
        key: (B, Hk, N, Dk); head h of the query reads head h // (H // Hk).
        value: (B, Hk, N, Dv).
        log_decay: natural logarithms, at most 0: (H,), (B, H, N) or, for each row of the state, (B, H, N, Dk).
        beta: (B, H, N).
        initial_state: (B, H, Dk, Dv); zeros if None.
        chunk_size: tokens that are worked on together, rounded up to what the kernel can do; None for its choice.
    """
    tensors, chunk = Tensors(query, key, value, log_decay, beta, initial_state), chunk_size or 0
    if not plain(tensors):
        results: tuple[Tensor, Tensor] = torch.ops.manymax.recurrence(*tensors, chunk)
    elif torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        results = _apply(chunk, *tensors)
    else:
        results = columns.forward(tensors, chunk)
    return results


@functools.cache
def _native_step() -> Any:
    """Return the module's function, or None."""
    module = native()
    return None if module is None else module.linear_step


def advance(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    out: Tensor,
) -> bool:
    """Do what `attend` does for a few tokens in given memory: move a state on in place, and write the outputs.

    Half of the memory is touched that new memory would take. Nobody else may hold the state, it has no history, and no
    compiler is at work, which the caller has asked.

    Args:
        query: (B, H, N, Dk).
        key: (B, Hk, N, Dk).
        value: (B, Hk, N, Dv).
        log_decay: as in `attend`.
        beta: (B, H, N).
        state: (B, H, Dk, Dv), the initial state; overwritten by the final one.
        out: (B, H, N, Dv), overwritten.

    Returns:
        Whether it was done. If not, since a gradient may be asked for, or tensors are others than the kernel takes or
        have no memory to read, nothing has been written.
    """
    # 0.6 us beside the native call, which takes 1.4 for a state of 128 KB: a question of torch takes 25 ns or more, and
    # a name by way of three modules as much.
    if is_grad_enabled() or not is_alone():
        return False
    step = _native_step()
    if step is None or not step(query, key, value, log_decay, beta, state, state, out, get_num_threads()):
        return False
    increment_version(state)
    return True


class _Recurrence(torch.autograd.Function):
    """The kernels with gradients, for eager calls."""

    @staticmethod
    def forward(ctx: Any, chunk: int, *given: Any) -> tuple[Tensor, Tensor]:
        """Run the kernel and keep its inputs, from which its backward computes states again."""
        ctx.chunk = chunk
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        return columns.forward(Tensors(*given), chunk)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_state: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the backward kernel; the op refuses second derivatives, and serves a batch of gradients one by one."""
        tensors, needs = Tensors(*ctx.saved_tensors), ctx.needs_input_grad[4:]
        grads = [d for d in (d_out, d_state) if d is not None]
        if torch.is_grad_enabled() or not plain(grads) or any(is_batched(d) for d in grads):
            found = torch.ops.manymax.recurrence_backward(d_out, d_state, *tensors, needs, ctx.chunk)
        else:
            found = columns.backward(d_out, d_state, tensors, needs, ctx.chunk)
        return None, *_asked(found, needs)


_apply: Any = _Recurrence.apply  # untyped in torch


def _asked(found: tuple[Tensor, ...], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the order of `Tensors`."""
    return *found[:3], *(x if need else None for x, need in zip(found[3:], needs, strict=True))


def _op(*args: Any) -> tuple[Tensor, Tensor]:
    *given, chunk = args
    return columns.forward(Tensors(*given), chunk)


def _fake(*args: Any) -> tuple[Tensor, Tensor]:
    return empty_results(Tensors(*args[:6]))


def _op_backward(d_out: Tensor | None, d_state: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    *given, needs, chunk = args
    return columns.backward(d_out, d_state, Tensors(*given), needs, chunk)


def _fake_backward(d_out: Tensor | None, d_state: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    del d_out, d_state
    return empty_gradients(Tensors(*args[:6]), args[6])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    del output
    *given, ctx.chunk = inputs
    ctx.save_for_backward(*given)
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, d_out: Tensor | None, d_state: Tensor | None) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[3:6]
    found = torch.ops.manymax.recurrence_backward(d_out, d_state, *ctx.saved_tensors, needs, ctx.chunk)
    return *_asked(found, needs), None


def _refuse_second(ctx: Any, *gradients: Tensor) -> Any:
    del ctx, gradients
    raise RuntimeError("the native recurrence gives no second derivatives; the plain PyTorch form has them")


_LIBRARY.impl("recurrence", _op, "CPU")
_LIBRARY.impl("recurrence_backward", _op_backward, "CPU")
torch.library.register_fake("manymax::recurrence", _fake, lib=_LIBRARY)
torch.library.register_fake("manymax::recurrence_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd("manymax::recurrence", _autograd, setup_context=_setup_context, lib=_LIBRARY)
torch.library.register_autograd("manymax::recurrence_backward", _refuse_second, lib=_LIBRARY)
