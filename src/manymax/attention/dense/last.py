"""Gradients that are the last ones: going on from them raises, where it would silently be wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


class _Last(torch.autograd.Function):
    """Gradients that depend on tensors in a way that nothing here knows."""

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, message: str, *tensors: Tensor | None) -> Gradients:
        """Return the gradients."""
        del tensors
        ctx.message = message
        return gradients

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Refuse."""
        del gradients
        raise RuntimeError(ctx.message)


def last(gradients: Gradients, message: str, *tensors: Tensor | None) -> Gradients:
    """Return what the backward of an autograd function has found; with create_graph=True, as what cannot be derived.

    Args:
        gradients: of the function's inputs.
        message: what is raised where someone derives them.
        *tensors: all that they depend on.
    """
    if not torch.is_grad_enabled():
        return gradients
    found: Gradients = _Last.apply(gradients, message, *tensors)  # type: ignore[no-untyped-call]
    return found
