"""The list of claims. Loading one imports its file, and not torch; running it imports the experiment."""

from __future__ import annotations

import difflib
from importlib import import_module

from manymax.claims.claim import Claim

NAMES = (
    "aaren",
    "attention-sink-metric",
    "cnn-svm",
    "colbert-projections",
    "comp-sum-losses",
    "decoupled-softmax",
    "deltanet",
    "dsf",
    "equiangular-basis-vectors",
    "flash-attention-4",
    "flashdecoding-pp",
    "flowformer",
    "fourier-head",
    "galerkin-transformer",
    "gated-deltanet",
    "gated-linear-attention",
    "ghosts-of-softmax",
    "hyperspherical-embedding",
    "inline-attention",
    "kernelized-attention-rpe",
    "l2vit",
    "ldr-losses",
    "lightning-attention",
    "lightning-attention-2",
    "linear-transformers",
    "local-linear-attention",
    "logit-standardization-kd",
    "madacos",
    "mala",
    "mamba2",
    "nalaformer",
    "nats-l",
    "neural-collapse",
    "normalized-attention-pooling",
    "orthogonal-projection-loss",
    "pointer-networks",
    "power-softmax",
    "retentive-network",
    "sd-ssm",
    "siglip",
    "sigmoid-attention",
    "sinkformers",
    "soft",
    "softcon",
    "softhgnn",
    "softmax-rnn",
    "sphereface2",
    "stablemax",
    "systematic-outliers",
    "test-time-regression",
    "transnormer-llm",
    "two-pass-softmax",
    "vit-attention-analytics",
    "wasserstein-dependency",
    "z-loss-spherical",
)


def list_claims() -> list[str]:
    """Return the names of all claims.

    Example:
        >>> from manymax.claims.registry import list_claims
        >>> "stablemax" in list_claims()
        True
    """
    return sorted(NAMES)


def load_claim(name: str) -> Claim:
    """Return a claim by name.

    Raises:
        ValueError: if there is no claim of that name.

    Example:
        >>> from manymax.claims.registry import load_claim
        >>> print(load_claim("stablemax").source)
        Prieto et al., 2025, Grokking at the Edge of Numerical Stability, arXiv:2501.04697
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name: expected one of {', '.join(NAMES)}, got {name!r}{hint}")
    claim: Claim = import_module(f"manymax.claims.{name.replace('-', '_')}").CLAIM
    return claim
