"""Taylor orders of softmax and what may stand for its denominator, in a small GPT (Mongaras and Larson, 2025)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch

from manymax.attention.module import create_attention
from manymax.attention.recurrent.softmax_rnn import truncated_exp
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.swap import learn
from manymax.claims.experiments.training import part, validation_loss
from manymax.data.text import Text

LINEAR_SIZES = {"head_dim": 16, "num_heads": 2}


def variants(orders: list[int]) -> dict[str, Any]:
    """Return the mechanisms by name."""
    norm = {"denominator": "count", "output": "rms"}
    options: dict[str, dict[str, Any]] = {
        "divs norm": norm,
        "divs gate": {"denominator": "count", "output": "gate"},
        "plain": {"denominator": "none"},
        **{f"order {order}": {"order": order, **norm} for order in orders},
    }
    made = {name: partial(create_attention, "softmax-rnn", **each) for name, each in options.items()}
    return {"softmax": "softmax", "linear": "linear", **made}


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train each variant and compare the losses."""
    progress(0.0, "recurrence")
    task, losses = Text(length=numbers["length"]), {}
    makes = variants(numbers["orders"])
    for index, (name, make) in enumerate(makes.items()):
        model = learn(task, make, seed, numbers, part(progress, name, index, len(makes)))
        losses[name] = validation_loss(model, task)
    ratios = {name: loss / losses["softmax"] for name, loss in losses.items()}
    by_order = [ratios[f"order {order}"] for order in numbers["orders"]]
    high = [ratio for order, ratio in zip(numbers["orders"], by_order, strict=True) if order >= 6]
    gap = max(abs(high[0] - 1), 1e-9)
    return {
        "divs_norm_loss_ratio": ratios["divs norm"],
        "largest_rise": max(then / before for before, then in pairwise(by_order)),
        "order_six_off": max(abs(ratio - 1) for ratio in high),
        "order_one_gap_ratio": (by_order[0] - 1) / gap,
        "plain_loss_ratio": ratios["plain"] / max(1.0, ratios["divs norm"]),
        "softmax_loss": losses["softmax"],
        "order_one_loss_ratio": by_order[0],
        "divs_gate_loss_ratio": ratios["divs gate"],
        "linear_loss_ratio": ratios["linear"],
        "recurrence_error": recurrence_error(seed),
    }


@torch.no_grad()
def recurrence_error(seed: int) -> float:
    """Return the largest difference of the recurrence of order 2 and the sum over pairs."""
    query, key, value = torch.randn(3, 1, 2, 100, 16, generator=torch.Generator().manual_seed(seed)).unbind()
    weight = truncated_exp(query @ key.transpose(2, 3) / 4, 2).tril()
    expected = weight @ value / weight.sum(-1, keepdim=True)
    out = create_attention("softmax-rnn", order=2, **LINEAR_SIZES)(query, key, value, is_causal=True)
    return float((out - expected).abs().max())
