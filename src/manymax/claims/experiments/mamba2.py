"""Mamba-2: recall over the size of the state, text, and chunks against a scan (Dao and Gu, 2024)."""

from __future__ import annotations

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.bases import chunk_speed_up, forms_difference, recall, text_loss
from manymax.claims.experiments.training import part


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train on recall with three sizes of the state and on text, then compare the forms."""
    shares = [
        recall("mamba2", seed, {**numbers, "num_heads": heads}, part(progress, f"recall, {heads} heads", i, 6))
        for i, heads in enumerate((8, 4, 2))
    ]
    _, softmax = text_loss("softmax", seed, numbers, part(progress, "text, softmax", 3, 6))
    _, mamba = text_loss("mamba2", seed, numbers, part(progress, "text, mamba2", 4, 6))
    progress(5 / 6, "times")
    return {
        "recall_gain_of_size": shares[-1] - shares[0],
        "smallest_state_recall": shares[0],
        "largest_state_recall": shares[-1],
        "text_loss_ratio": mamba / softmax,
        "softmax_text_loss": softmax,
        "chunk_speed_up": chunk_speed_up("mamba2", numbers),
        "forms_difference": forms_difference("mamba2", seed),
    }
