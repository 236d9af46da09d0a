"""Tiles of linear attention with decay: speed over length, exactness, memory, learning (Qin et al., 2024)."""

from __future__ import annotations

import torch

from manymax.attention.dense.api import attention
from manymax.attention.linear.lightning import alibi_slopes
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.costs import one_thread
from manymax.claims.experiments.forms import form, heads, largest_relative_error, results, saved_bytes
from manymax.claims.experiments.swap import learn
from manymax.claims.experiments.timing import best_times
from manymax.claims.experiments.training import part, validation_loss
from manymax.data.text import Text


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    progress(0.0, "exactness")
    metrics: Metrics = {"error": form_error(seed, numbers["error_length"], numbers["head_width"])}
    metrics |= length_metrics(seed, numbers)
    task = Text(length=numbers["length"])
    losses = {}
    for index, name in enumerate(("softmax", "lightning-attention")):
        model = learn(task, name, seed, numbers, part(progress, name, 1 + index, 3))
        losses[name] = validation_loss(model, task)
    metrics["loss_ratio"] = losses["lightning-attention"] / losses["softmax"]
    metrics["softmax_loss"] = losses["softmax"]
    return metrics


def form_error(seed: int, length: int, width: int) -> float:
    """Return the largest error of three forms in float32 against the masked product of all pairs in float64."""
    log_decay = -alibi_slopes(2)
    exact = heads(seed, length, count=2, width=width, dtype=torch.float64)

    def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        places = torch.arange(length, dtype=torch.float64)
        apart = (places[:, None] - places).clamp(min=0)
        mask = (log_decay.double()[:, None, None] * apart).exp().tril()
        return (query @ key.transpose(2, 3) * mask) @ value

    expected = results(masked, exact)
    low = [x.detach().float().requires_grad_() for x in exact]
    forms: list[dict[str, str]] = [{}, {"backend": "recurrent"}, {"backend": "quadratic"}]
    return max(largest_relative_error(results(form(log_decay, **options), low), expected) for options in forms)


def length_metrics(seed: int, numbers: Numbers) -> Metrics:
    """Return speeds and bytes a token at the long length over those at the short one."""
    slope = -alibi_slopes(1)
    lengths = numbers["short"], numbers["long"]
    inputs = [heads(seed, length, count=1, width=numbers["head_width"]) for length in lengths]
    kept = [saved_bytes(lambda x=x: form(slope)(*x)) / length for x, length in zip(inputs, lengths, strict=True)]  # type: ignore[misc]
    with one_thread(), torch.no_grad():
        works = [lambda x=x: form(slope)(*x) for x in inputs]
        works += [lambda x=x: attention(*x, is_causal=True) for x in inputs]  # type: ignore[misc]
        times = best_times(works, numbers["rounds"], numbers["seconds"])
    speeds = [length / time for length, time in zip(lengths * 2, times, strict=True)]
    return {
        "speed_ratio": speeds[1] / speeds[0],
        "softmax_speed_ratio": speeds[3] / speeds[2],
        "memory_per_token_change": abs(kept[1] / kept[0] - 1),
    }
