"""Whether rounding has stopped softmax from learning, and whether descent only scales the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor


def softmax_collapse(logits: Tensor) -> float:
    """Return the share of rows (n, classes) whose float32 sum of exp(z - max z) is exactly 1: all but one absorbed."""
    logits = logits.float()
    sums = (logits - logits.amax(-1, keepdim=True)).exp().sum(-1)
    return float((sums == 1).float().mean())


def descent_cosine(weights: Iterable[Tensor]) -> float:
    """Return the cosine between the weights and their negative gradients, all tensors together as one vector."""
    pairs = [(weight.detach(), -weight.grad) for weight in weights if weight.grad is not None]
    dot = sum(float((weight * descent).sum()) for weight, descent in pairs)
    lengths = [math.sqrt(sum(float(pair[side].square().sum()) for pair in pairs)) for side in (0, 1)]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0
