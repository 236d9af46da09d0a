"""Losses of a linear map's scores by chunks of tokens, with gradients that never hold more than a chunk's scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manymax.heads.chunk import Chunk, Settings, Tensors, chunks, wide


class Gradients:
    """Gradients of input, linear weight and bias, summed over chunks in float32 at least."""

    def __init__(self, tensors: Tensors, needs: tuple[bool, ...]) -> None:
        self.tensors, dtype = tensors, wide(tensors.input.dtype)
        self.input = torch.empty_like(tensors.input) if needs[0] else None
        self.weight = torch.zeros_like(tensors.linear_weight, dtype=dtype) if needs[1] else None
        has_bias = tensors.linear_bias is not None
        self.bias = torch.zeros_like(tensors.linear_bias, dtype=dtype) if needs[2] and has_bias else None  # type: ignore[arg-type]

    def add(self, d_scores: Tensor, part: slice) -> None:
        """Add a chunk's."""
        if self.bias is not None:
            self.bias += d_scores.sum(0)
        d = d_scores.to(self.tensors.input.dtype)
        if self.input is not None:
            self.input[part] = d @ self.tensors.linear_weight
        if self.weight is None:
            return
        if d.dtype == self.weight.dtype:
            self.weight.addmm_(d.T, self.tensors.input[part])
        else:
            self.weight += d.T @ self.tensors.input[part]

    def results(self, scale: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """Return them in their tensors' dtypes, times a number."""
        found = (self.input, self.weight, self.bias)
        return tuple(
            None if x is None or like is None else (x if scale is None else x * scale.to(x.dtype)).to(like.dtype)
            for x, like in zip(found, self.tensors[:3], strict=True)
        )


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
        gradients = Gradients(tensors, needs)
        d_target = torch.empty_like(tensors.target) if needs[3] else None
        for part in chunks(tensors, settings.chunk_size):
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
        for part in chunks(tensors, settings.chunk_size):
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
        gradients = Gradients(tensors, needs)
        d_target = torch.zeros_like(tensors.target) if needs[3] else None
        for part in chunks(tensors, ctx.settings.chunk_size):
            chunk = Chunk(tensors, ctx.settings, part)
            gain = torch.zeros_like(chunk.lse) if d_losses is None else d_losses[part]
            if d_target is not None:
                d_target[part] = chunk.d_target(gain)
            gradients.add(chunk.d_scores(gain, None if d_lse is None else d_lse[part]), part)
        return None, *gradients.results(), d_target, None, None


_reduced: Any = _Reduced.apply  # untyped in torch
_per_token: Any = _PerToken.apply
