"""NaLaFormer: evenness of weights and norms of queries, learning, time (Meng et al., 2025)."""

from __future__ import annotations

from functools import partial

import torch

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import gap_ratio, on_digits, on_text, ranks_agree, rows
from manymax.claims.experiments.costs import mechanism_slope
from manymax.claims.experiments.training import part
from manymax.data.text import Text

CORE = {"rope": False, "local": 0, "gate": False}
OTHERS = ("softmax", "linear-relu", "linear", "mala")
PARTS = 3


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    plain = {name: partial(create_attention, name, local=0, gate=False) for name in ("mala", "nalaformer")}
    contenders = {name: plain.get(name, name) for name in (*OTHERS, "nalaformer")}
    text = {**numbers, **numbers["text"]}
    on_bytes = on_text(contenders, Text(length=text["length"]), seed, text, part(progress, "text", 0, PARTS))
    images = on_digits(contenders, seed, {**numbers, **numbers["digits"]}, part(progress, "digits", 1, PARTS))
    metrics: Metrics = {}
    for name, runs in {"text": on_bytes, "digits": images}.items():
        if isinstance(runs, Untestable):
            names = ("gap_ratio", "relu_gap", "gap_ratio_of_mala", "gap_ratio_of_elu")
            metrics |= {f"{name}_{metric}": runs for metric in names}
            continue
        metrics[f"{name}_gap_ratio"] = gap_ratio(runs, "nalaformer", "linear-relu")
        metrics[f"{name}_relu_gap"] = runs["linear-relu"].loss - runs["softmax"].loss
        metrics[f"{name}_gap_ratio_of_mala"] = gap_ratio(runs, "mala", "linear-relu")
        metrics[f"{name}_gap_ratio_of_elu"] = gap_ratio(runs, "linear", "linear-relu")
    progress(2 / PARTS, "weights and times")
    metrics |= evenness(seed, **numbers["weights"])
    metrics["time_slope"] = mechanism_slope("nalaformer", seed, numbers["time"])
    return metrics


def evenness(seed: int, *, tokens: int, width: int, scales: list[float]) -> Metrics:
    """Return how the entropy of rows of weights goes with the norm of the query, if that alone changes."""
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, tokens, width, generator=generator, dtype=torch.float64).unbind()
    unit = query / query.norm(dim=-1, keepdim=True)
    entropies = {}
    for name, options in {"nalaformer": CORE, "linear-relu": {}}.items():
        module = create_attention(name, head_dim=width, num_heads=1, **options).double()
        weights = torch.stack([rows(module, scale * unit, key)[0, 0] for scale in scales])
        shares = weights / weights.sum(-1, keepdim=True)
        entropies[name] = torch.special.entr(shares.clamp(min=0)).sum(-1)  # (scales, tokens)
    norms = torch.tensor(scales)
    agreement = [ranks_agree(entropies["nalaformer"][:, i], norms) for i in range(tokens)]
    relu = entropies["linear-relu"]
    return {
        "rank_correlation": sum(agreement) / tokens,
        "relu_entropy_change": float((relu.amax(0) - relu.amin(0)).max()),
        "entropy_fall": float((entropies["nalaformer"][0] - entropies["nalaformer"][-1]).mean()),
    }
