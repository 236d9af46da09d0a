"""The heads under test: every name with its options, and what a batch for it looks like."""

import torch

import manymax as mm

# One entry for each option that takes another way through a head's code; {} is tried for all.
OPTIONS = {
    "softmax": [{"label_smoothing": 0.2, "lse_penalty": 0.1}, {"float64": True, "lse_penalty": 0.1}],
    "stablemax": [{"float64": True}],
    "adaptive-softmax": [{"cutoffs": [2, 4], "div_value": 2.0, "head_bias": True, "float64": True}],
    "cnn-svm": [{"p": 1, "averaged": True, "C": 0.3}, {"multiclass": "crammer-singer"}],
    "comp-sum-losses": [{"tau": 0.0}, {"tau": 1.5}, {"tau": 3.0}],
    "entmax": [{"alpha": 1.0}, {"alpha": 1.2}],
    "focal": [{"gamma": 0.5, "alpha": [0.5, 1, 0, 2, 1, 1, 3]}, {"gamma": 0.0}],
    "fourier-head": [{"frequencies": 2, "gamma": 0.01, "eps": 1e-2}],
    "ldr-losses": [
        {"alpha": 0.5, "normalize": "l1", "lam": 2.0},
        {"adaptive": False, "lam": 0.5, "normalize": "softplus", "margin": 0.1},
    ],
    "pointer-networks": [{"combine": "dot"}, {"hidden": 3, "float64": True}],
}
# Heads whose rows are of length 1 or fixed have no bias.
WITHOUT_BIAS: set[str] = {"adaptive-softmax", "hierarchical-softmax", "pointer-networks"}
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
