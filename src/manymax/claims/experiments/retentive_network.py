"""Retention against softmax: text, forms and time (Sun et al., 2023)."""

from __future__ import annotations

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.bases import forms_difference, step_growth, text_loss
from manymax.claims.experiments.training import part


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train both, then compare forms and time them."""
    _, softmax = text_loss("softmax", seed, numbers, part(progress, "softmax", 0, 3))
    _, retention = text_loss("retention", seed, numbers, part(progress, "retention", 1, 3))
    progress(2 / 3, "forms and times")
    step, state = step_growth("retention", numbers)
    return {
        "forms_difference": forms_difference("retention", seed),
        "step_growth": step,
        "state_growth": state,
        "text_loss_ratio": retention / softmax,
        "softmax_text_loss": softmax,
    }
