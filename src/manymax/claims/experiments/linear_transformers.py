"""Linear attention against softmax: text, and time over length (Katharopoulos et al., 2020)."""

from __future__ import annotations

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.bases import growth, step_growth, text_loss
from manymax.claims.experiments.training import part


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train both, then time them."""
    _, softmax = text_loss("softmax", seed, numbers, part(progress, "softmax", 0, 3))
    _, linear = text_loss("linear", seed, numbers, part(progress, "linear", 1, 3))
    progress(2 / 3, "times")
    step, state = step_growth("linear", numbers)
    return {
        "growth": growth("linear", numbers),
        "softmax_growth": growth("softmax", numbers),
        "step_growth": step,
        "state_growth": state,
        "softmax_step_growth": step_growth("softmax", numbers)[0],
        "text_loss_ratio": linear / softmax,
        "softmax_text_loss": softmax,
    }
