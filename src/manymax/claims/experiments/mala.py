"""MALA: weights that know how large a query is, learning, time (Fan et al., 2025)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import gap_ratio, on_digits, on_text, rows
from manymax.claims.experiments.costs import mechanism_slope
from manymax.claims.experiments.training import part
from manymax.data.text import Text

CORE = {"rope": False, "local": 0, "gate": False}
PARTS = 3


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    contenders = {
        "softmax": "softmax",
        "linear": "linear",
        "mala": partial(create_attention, "mala", local=0, gate=False),
    }
    text = {**numbers, **numbers["text"]}
    on_bytes = on_text(contenders, Text(length=text["length"]), seed, text, part(progress, "text", 0, PARTS))
    metrics: Metrics = {
        "text_gap_ratio": gap_ratio(on_bytes, "mala", "linear"),
        "text_linear_gap": on_bytes["linear"].loss - on_bytes["softmax"].loss,
        "softmax_text_loss": on_bytes["softmax"].loss,
    }
    images = on_digits(contenders, seed, {**numbers, **numbers["digits"]}, part(progress, "digits", 1, PARTS))
    if isinstance(images, Untestable):
        metrics |= dict.fromkeys(("digits_gap_ratio", "digits_linear_gap", "softmax_digits_loss"), images)
    else:
        metrics["digits_gap_ratio"] = gap_ratio(images, "mala", "linear")
        metrics["digits_linear_gap"] = images["linear"].loss - images["softmax"].loss
        metrics["softmax_digits_loss"] = images["softmax"].loss
    progress(2 / PARTS, "weights and times")
    metrics |= spreads(seed, **numbers["weights"])
    metrics["time_slope"] = mechanism_slope("mala", seed, numbers["time"])
    return metrics


def spreads(seed: int, *, tokens: int, width: int, scales: list[float]) -> Metrics:
    """Return how the standard deviation of rows of weights changes if queries are multiplied by growing numbers."""
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, tokens, width, generator=generator, dtype=torch.float64).unbind()
    found: dict[str, list[Tensor]] = {}
    sums = 0.0
    for name, options in {"mala": CORE, "softmax": {}, "linear-relu": {}}.items():
        module = create_attention(name, head_dim=width, num_heads=1, **options).double()
        weights = [rows(module, scale * query, key) for scale in scales]
        found[name] = [each.std(-1) for each in weights]
        if name == "mala":
            sums = max(float((each.sum(-1) - 1).abs().max()) for each in weights)
    change = max(float((now / before - 1).abs().max()) for before, now in pairwise(found["linear-relu"]))
    grow = {
        name: min(float(now.mean() / before.mean()) for before, now in pairwise(found[name]))
        for name in ("mala", "softmax")
    }
    return {
        "mala_spread_growth": grow["mala"],
        "softmax_spread_growth": grow["softmax"],
        "relu_spread_change": change,
        "row_sum_error": sums,
    }
