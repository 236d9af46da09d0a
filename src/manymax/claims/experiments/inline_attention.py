"""InLine attention: different queries, different weights; learning; operations (Han et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manymax.attention.module import create_attention
from manymax.attention.weights import attention_weights, injectivity_gap, local_mass
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import Learnt, on_digits, seen
from manymax.claims.experiments.costs import attending, flops
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits

CONTENDERS: dict[str, Any] = {
    "softmax": "softmax",
    "linear": "linear-relu",
    "inline": "inline-attention",
    "inline without local": partial(create_attention, "inline-attention", local=0),
}
GRID = (8, 8)  # of the digits' pixels
NEAR = 3  # side of the window that counts as near
LOOKING = {"softmax": "softmax", "linear": "linear", "inline": "inline without local"}  # those that are weights alone


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    images = on_digits(CONTENDERS, seed, numbers, part(progress, "digits", 0, 2))
    metrics: Metrics
    if isinstance(images, Untestable):
        names = ("points_above_softmax", "points_above_linear", "points_of_local", "softmax_accuracy")
        metrics = dict.fromkeys((*names, *(f"near_mass_of_{name}" for name in LOOKING)), images)
    else:
        points = {name: 100 * learnt.quality for name, learnt in images.items()}
        metrics = {
            "points_above_softmax": points["inline"] - points["softmax"],
            "points_above_linear": points["inline"] - points["linear"],
            "points_of_local": points["inline"] - points["inline without local"],
            "softmax_accuracy": points["softmax"],
            **near_masses(images, Digits().held_out()[0][: numbers["probed"]]),
        }
    progress(0.5, "weights and operations")
    return metrics | weights_metrics(seed, **numbers["weights"]) | {"flop_ratio": flop_ratio(seed, **numbers["flops"])}


def near_masses(images: Mapping[str, Learnt], inputs: Tensor) -> Metrics:
    """Return the mean share of weight that trained models' queries give to their own pixel and the 8 around it."""
    found: Metrics = {}
    for name, contender in LOOKING.items():
        shares, make = [], CONTENDERS[contender]
        for query, key in seen(images[contender].model, inputs):
            sizes = {"head_dim": query.shape[3], "num_heads": query.shape[1]}
            mechanism = create_attention(make, **sizes) if isinstance(make, str) else make(**sizes)
            shares.append(local_mass(attention_weights(mechanism, query, key), NEAR, GRID).nanmean())
        found[f"near_mass_of_{name}"] = float(torch.stack(shares).mean())
    return found


def weights_metrics(seed: int, *, tokens: int, width: int) -> Metrics:
    """Return how much weights change if queries are doubled, and how far the linear form is from all pairs."""
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, tokens, width, generator=generator, dtype=torch.float64).unbind()
    found = {}
    for name, options in {"linear-relu": {}, "inline-attention": {"local": 0}}.items():
        module = create_attention(name, head_dim=width, num_heads=1, **options).double()
        weights, doubled = (attention_weights(module, scale * query, key) for scale in (1, 2))
        found[name] = float(injectivity_gap(weights, doubled).max())
    module = create_attention("inline-attention", head_dim=width, num_heads=1, local=0)
    linear = attention_weights(module, query.float(), key.float())
    return {
        "relu_change": found["linear-relu"],
        "inline_change": found["inline-attention"],
        "form_difference": float((linear - all_pairs(query, key)).abs().max()),
    }


def all_pairs(query: Tensor, key: Tensor) -> Tensor:
    """Return InLine's weights (B, H, Nq, Nk) by their definition."""
    tokens, width = key.shape[2:]
    products = query @ key.transpose(2, 3)
    centred: Tensor = products - products.mean(-1, keepdim=True)
    weights: Tensor = width**-0.5 / tokens * centred + 1 / tokens
    return weights


def flop_ratio(seed: int, *, tokens: int, width: int) -> float:
    """Return the operations of InLine's core over those of softmax attention, matrix products alone."""
    inline = create_attention("inline-attention", head_dim=width, num_heads=1, local=0)

    def softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.softmax(query @ key.transpose(2, 3) * width**-0.5, -1) @ value

    ours, theirs = (flops(attending(each, 1, width, seed)(tokens)) for each in (inline, softmax))
    return ours / theirs
