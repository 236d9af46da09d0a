"""Losses of a linear map's scores by chunks of tokens, with gradients that never hold more than a chunk's scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manymax.heads.chunk import Chunk, Linear, Settings, Tensors, chunks, wide
from manymax.heads.gradients import Gradients


def reduced(tensors: Tensors, settings: Settings, reduction: str) -> Tensor:
    """Return the sum or the mean of the losses."""
    loss: Tensor = _reduced(settings, reduction, *tensors)
    return loss


def per_token(tensors: Tensors, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return losses and lse of the tokens, (N,) each."""
    results: tuple[Tensor, Tensor] = _per_token(settings, *tensors)
    return results


class _Reduced(torch.autograd.Function):
    """One number, whose gradients are found with the scores at hand, up to the factor that comes back."""

    @staticmethod
    def forward(ctx: Any, settings: Settings, reduction: str, *given: Any) -> Tensor:
        """Return the loss."""
        tensors, needs = Tensors(*given), ctx.needs_input_grad[2:6]
        divisor = settings.divisor(reduction, tensors)
        total = torch.zeros((), dtype=torch.float64, device=divisor.device)
        gradients = Gradients(Linear(*tensors[:3]), needs)
        d_target = torch.empty_like(tensors.target) if needs[3] else None
        for part in chunks(len(tensors.input), len(tensors.linear_weight), settings.chunk_size):
            chunk = Chunk(tensors, settings, part)
            total += chunk.losses().sum()
            if any(needs):
                gain = (1 / divisor).to(chunk.lse).expand_as(chunk.lse)
                if d_target is not None:
                    d_target[part] = chunk.d_target(gain)
                gradients.add(chunk.d_scores(gain, None), part)
        ctx.gradients, ctx.d_target = gradients, d_target
        return (total / divisor).to(wide(tensors.input.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Any, ...]:
        """Return what the forward pass has found, times the loss's own gradient."""
        d_target = None if ctx.d_target is None else ctx.d_target * d_loss.to(ctx.d_target.dtype)
        return None, None, *ctx.gradients.results(d_loss), d_target, None, None


class _PerToken(torch.autograd.Function):
    """A loss and an lse for each token; the backward pass computes the scores again."""

    @staticmethod
    def forward(ctx: Any, settings: Settings, *given: Any) -> tuple[Tensor, Tensor]:
        """Return losses and lse."""
        tensors = Tensors(*given)
        dtype = wide(tensors.input.dtype)
        losses, lse = (tensors.input.new_empty(len(tensors.input), dtype=dtype) for _ in range(2))
        for part in chunks(len(tensors.input), len(tensors.linear_weight), settings.chunk_size):
            chunk = Chunk(tensors, settings, part)
            losses[part], lse[part] = chunk.losses(), chunk.lse
        ctx.settings = settings
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        return losses, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_losses: Tensor | None, d_lse: Tensor | None) -> tuple[Any, ...]:
        """Return gradients of both."""
        tensors, needs = Tensors(*ctx.saved_tensors), ctx.needs_input_grad[1:5]
        gradients = Gradients(Linear(*tensors[:3]), needs)
        d_target = torch.zeros_like(tensors.target) if needs[3] else None
        for part in chunks(len(tensors.input), len(tensors.linear_weight), ctx.settings.chunk_size):
            chunk = Chunk(tensors, ctx.settings, part)
            gain = torch.zeros_like(chunk.lse) if d_losses is None else d_losses[part]
            if d_target is not None:
                d_target[part] = chunk.d_target(gain)
            gradients.add(chunk.d_scores(gain, None if d_lse is None else d_lse[part]), part)
        return None, *gradients.results(), d_target, None, None


_reduced: Any = _Reduced.apply  # untyped in torch
_per_token: Any = _PerToken.apply
