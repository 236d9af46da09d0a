"""The delta rule: recall, text, and chunks against token by token (Yang et al., 2024)."""

from __future__ import annotations

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.bases import chunk_speed_up, recall, text_loss
from manymax.claims.experiments.training import part


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train on recall and text, then time the two forms."""
    names = ("softmax", "linear", "gated-linear", "delta")
    recalled = {
        name: recall(name, seed, numbers, part(progress, f"recall, {name}", i, 7)) for i, name in enumerate(names)
    }
    _, gated = text_loss("gated-linear", seed, numbers, part(progress, "text, gated-linear", 4, 7))
    _, delta = text_loss("delta", seed, numbers, part(progress, "text, delta", 5, 7))
    progress(6 / 7, "times")
    return {
        "delta_recall": recalled["delta"],
        "linear_recall": recalled["linear"],
        "softmax_recall": recalled["softmax"],
        "gated_linear_recall": recalled["gated-linear"],
        "ratio_to_gated_linear": delta / gated,
        "chunk_speed_up": chunk_speed_up("delta", numbers),
    }
