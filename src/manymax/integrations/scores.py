"""What a library's masks say in another way than manymax's."""

from __future__ import annotations

import torch
from torch import Tensor


def without_finite(mask: Tensor | None) -> Tensor | None:
    """Return a float mask with -inf where it holds about the lowest finite number, by which models say the same.

    softmax makes 0 of either. Other maps count the keys that a query sees, or make of a low score what is not 0.
    """
    if mask is None or not mask.is_floating_point():
        return mask
    return mask.masked_fill(mask <= torch.finfo(mask.dtype).min / 2, -torch.inf)
