"""The heads under test: every name with its options, and what a batch for it looks like."""

import torch

import manymax as mm

# One entry for each option that takes another way through a head's code; {} is tried for all.
OPTIONS = {
    "arcface": [{"margin": 0.3, "scale": 8.0}, {"monotone": True, "margin": 1.5, "scale": 8.0}],
    "cosface": [{"margin": 0.2, "scale": 8.0}],
    "equiangular-basis-vectors": [{"temperature": 0.5, "alpha": 0.3, "seed": 1}],
    "hyperspherical-embedding": [{"scale": 8.0, "margin": 0.1, "angular_margin": 0.2}],
    "madacos": [{"alpha": 0.3}, {"others": "mean"}, {"others": "median"}],
    "orthogonal-projection-loss": [{"form": "signed", "gamma": 0.7}, {"form": "absolute", "weight_of_term": 0.3}],
    "sphereface2": [{"kind": "A"}, {"kind": "M", "margin": 1.3, "t": 2.0, "scale": 8.0}],
    "softmax": [{"label_smoothing": 0.2, "lse_penalty": 0.1}, {"float64": True, "lse_penalty": 0.1}],
    "stablemax": [{"float64": True}],
    "z-loss-spherical": [
        {"a": 2.0, "b": 0.5},
        {"loss": "mse"},
        {"loss": "spherical", "eps": 0.1},
        {"loss": "taylor"},
    ],
    "clip": [{"float64": True, "temperature": 0.3}],
    "colbert-projections": [
        {"projection": "ffn", "depth": 3, "activation": "silu", "expansion": 0.5, "out_features": 3},
        {"projection": "glu", "residual": True, "temperature": 0.3, "expansion": 0.5, "out_features": 3},
    ],
    "decoupled-softmax": [{"form": "infonce", "temperature": 0.3}, {"form": "bce", "temperature": 0.5}],
    "infonce": [{"temperature": 0.5}],
    "siglip": [{"negatives": 3}, {"negatives": 2, "keep": "easy", "logit_bias": -1.0}],
    "softcon": [{"instance": 0.5, "temperature": 0.4}],
    "wasserstein-dependency": [{"gp": 0.0}, {"gp": 0.5, "float64": True}],
    "soft-topk": [{"k": 3, "alpha": 0.5, "temperature": 0.3}],
}
# Heads whose rows are of length 1 or fixed have no bias.
WITHOUT_BIAS: set[str] = {
    "arcface",
    "cosface",
    "equiangular-basis-vectors",
    "hyperspherical-embedding",
    "madacos",
    "sphereface2",
    "clip",
    "colbert-projections",
    "decoupled-softmax",
    "infonce",
    "siglip",
    "soft-topk",
    "softcon",
}

FIXED = {"equiangular-basis-vectors"}  # their rows are no parameters

CASES = [(name, options) for name in mm.list_heads() for options in [{}, *OPTIONS.get(name, [])]]


def make(name, options=None, *, classes=7, features=6, shape=(3, 4), dtype=torch.float64, seed=0, **more):
    """Return a head with a bias where it can have one, features (*shape, features) and targets (shape)."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    bias = {} if name in WITHOUT_BIAS else {"bias": True}
    head = mm.create_head(name, in_features=features, num_classes=classes, **bias, **(options or {}), **more)
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    x = torch.randn(*shape, features, generator=generator, dtype=torch.float64).to(dtype)
    return head.to(dtype), x, torch.randint(classes, shape, generator=generator)
