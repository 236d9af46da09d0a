"""Gated linear attention against fixed decays and softmax: text and longer contexts (Yang et al., 2023)."""

from __future__ import annotations

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.bases import length_ratio, text_loss
from manymax.claims.experiments.training import part


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the three, then read longer contexts."""
    softmax_model, softmax = text_loss("softmax", seed, numbers, part(progress, "softmax", 0, 3))
    _, retention = text_loss("retention", seed, numbers, part(progress, "retention", 1, 3))
    gated_model, gated = text_loss("gated-linear", seed, numbers, part(progress, "gated-linear", 2, 3))
    return {
        "ratio_to_retention": gated / retention,
        "text_loss_ratio": gated / softmax,
        "length_ratio": length_ratio(gated_model, gated, numbers),
        "softmax_text_loss": softmax,
        "softmax_length_ratio": length_ratio(softmax_model, softmax, numbers),
    }
