"""The heads under test: every name with its options, and what a batch for it looks like."""

import torch

import manymax as mm

# One entry for each option that takes another way through a head's code; {} is tried for all.
OPTIONS = {
    "adaptive-softmax": [{"cutoffs": [2, 4], "div_value": 2.0, "head_bias": True, "float64": True}],
    "arcface": [{"margin": 0.3, "scale": 8.0}, {"monotone": True, "margin": 1.5, "scale": 8.0}],
    "clip": [{"float64": True, "temperature": 0.3}],
    "cnn-svm": [{"p": 1, "averaged": True, "C": 0.3}, {"multiclass": "crammer-singer"}],
    "colbert-projections": [
        {"projection": "ffn", "depth": 3, "activation": "silu", "expansion": 0.5, "out_features": 3},
        {"projection": "glu", "residual": True, "temperature": 0.3, "expansion": 0.5, "out_features": 3},
    ],
    "comp-sum-losses": [{"tau": 0.0}, {"tau": 1.5}, {"tau": 3.0}],
    "cosface": [{"margin": 0.2, "scale": 8.0}],
    "decoupled-softmax": [{"form": "infonce", "temperature": 0.3}, {"form": "bce", "temperature": 0.5}],
    "entmax": [{"alpha": 1.0}, {"alpha": 1.2}],
    "equiangular-basis-vectors": [{"temperature": 0.5, "alpha": 0.3, "seed": 1}],
    "focal": [{"gamma": 0.5, "alpha": [0.5, 1, 0, 2, 1, 1, 3]}, {"gamma": 0.0}],
    "fourier-head": [{"frequencies": 2, "gamma": 0.01, "eps": 1e-2}],
    "hyperspherical-embedding": [{"scale": 8.0, "margin": 0.1, "angular_margin": 0.2}],
    "infonce": [{"temperature": 0.5}],
    "ldr-losses": [
        {"alpha": 0.5, "normalize": "l1", "lam": 2.0},
        {"adaptive": False, "lam": 0.5, "normalize": "softplus", "margin": 0.1},
    ],
    "madacos": [{"alpha": 0.3}, {"others": "mean"}, {"others": "median"}],
    "orthogonal-projection-loss": [{"form": "signed", "gamma": 0.7}, {"form": "absolute", "weight_of_term": 0.3}],
    "pointer-networks": [{"combine": "dot"}, {"hidden": 3, "float64": True}],
    "siglip": [{"negatives": 3}, {"negatives": 2, "keep": "easy", "logit_bias": -1.0}],
    "soft-topk": [{"k": 3, "alpha": 0.5, "temperature": 0.3}],
    "softcon": [{"instance": 0.5, "temperature": 0.4}],
    "softmax": [{"label_smoothing": 0.2, "lse_penalty": 0.1}, {"float64": True, "lse_penalty": 0.1}],
    "sphereface2": [{"kind": "A"}, {"kind": "M", "margin": 1.3, "t": 2.0, "scale": 8.0}],
    "stablemax": [{"float64": True}],
    "wasserstein-dependency": [{"gp": 0.0}, {"gp": 0.5, "float64": True}],
    "z-loss-spherical": [
        {"a": 2.0, "b": 0.5},
        {"loss": "mse"},
        {"loss": "spherical", "eps": 0.1},
        {"loss": "taylor"},
    ],
}
# Heads whose rows are of length 1 or fixed have no bias.
WITHOUT_BIAS = {
    "adaptive-softmax",
    "arcface",
    "clip",
    "colbert-projections",
    "cosface",
    "decoupled-softmax",
    "equiangular-basis-vectors",
    "hierarchical-softmax",
    "hyperspherical-embedding",
    "infonce",
    "madacos",
    "pointer-networks",
    "siglip",
    "soft-topk",
    "softcon",
    "sphereface2",
}

FIXED = {"equiangular-basis-vectors"}  # their rows are no parameters
# Heads whose scores are not one linear map of the features to one number a class.
NOT_LINEAR = {"adaptive-softmax", "fourier-head", "hierarchical-softmax", "pointer-networks"}

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
