"""Autocast as torch's own attention obeys it: inputs become shorter, what is computed from them does not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def multiplied(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors in the dtype in which autocast would multiply them; float64 and integers stay."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products with x keep the dtype that they have."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
