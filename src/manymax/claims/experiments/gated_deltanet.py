"""Gated delta against delta and Mamba-2: text and recall (Yang et al., 2024)."""

from __future__ import annotations

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.bases import recall, text_loss
from manymax.claims.experiments.training import part


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the three on both tasks."""
    loss, share = {}, {}
    for i, name in enumerate(("mamba2", "delta", "gated-delta")):
        _, loss[name] = text_loss(name, seed, numbers, part(progress, f"text, {name}", 2 * i, 6))
        share[name] = recall(name, seed, numbers, part(progress, f"recall, {name}", 2 * i + 1, 6))
    return {
        "ratio_to_mamba2": loss["gated-delta"] / loss["mamba2"],
        "ratio_to_delta": loss["gated-delta"] / loss["delta"],
        "recall_gain_over_mamba2": share["gated-delta"] - share["mamba2"],
        "gated_delta_recall": share["gated-delta"],
        "delta_recall": share["delta"],
        "mamba2_recall": share["mamba2"],
        "gated_delta_text_loss": loss["gated-delta"],
    }
