"""The mechanisms that the contract tests run: every registered name, and options that take other ways through the code.

A new mechanism appears by itself; a line in OPTIONS adds a variant of it.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import manymax as mm
from manymax.attention.mechanism import CausalMechanism
from manymax.attention.registry import MECHANISMS, mechanism_class

OPTIONS = {
    "aaren": [{"form": "blelloch"}, {"form": "sequential"}],
    "delta": [{"conv_size": 0, "negative": True}],
    "flowformer": [{"feature_map": "relu", "limit": 5.0}],
    "galerkin-transformer": [
        {"kind": "fourier", "pos_dim": 1},
        {"kind": "softmax"},
        {"kind": "linear", "pos_dim": 2},
        {"norm": "instance"},
    ],
    "dsf": [{"feature_map": "elu", "normaliser": "softplus"}, {"conv_size": 2, "normaliser": "sigmoid"}],
    "gated-delta": [{"conv_size": 0, "gate": False}],
    "inline-attention": [{"feature_map": "leaky_relu", "local": 0}],
    "kernelized-attention-rpe": [
        {"max_distance": 3, "num_features": 5, "normalize": False},
        {"rpe": False, "orthogonal": False},
    ],
    "l2vit": [{"least": 0.0}],
    "lightning-attention-2": [{"conv_size": 3, "slopes": [0.0, 1.5, 0.01, 40.0]}],
    "linear": [{"feature_map": "squared_relu"}, {"feature_map": "favor", "num_features": 5}, {"conv_size": 2}],
    "mala": [{"mean": False, "rope": False, "local": 0, "gate": False}],
    "nalaformer": [{"rope": False, "local": 3, "gate": False}],
    "soft": [
        {"num_landmarks": 4, "symmetric": True, "tied": False, "local": 0},
        {"ratio": 1},
        {"ratio": 2, "iterations": 30},
    ],
    "softhgnn": [{"over": "edges", "num_edges": 3}],
    "softhgnn-ses": [{"num_dynamic": 7, "top_k": 2}],
    "local-linear-attention": [
        {"solver": "exact", "ridge": 0.1, "scale": 0.2, "block_size": 5},
        {"block_size": 4},
        {"block_size": 4, "key_block_size": 3, "ridge": 0.2},
    ],
    "nats-l": [{"block_size": 4}, {"block_size": 3, "conv_size": 0, "gate": False, "negative": True}],
    "sd-ssm": [{"form": "scan", "state_size": 5, "num_matrices": 3, "power": 2.0}],
    "softmax-rnn": [
        {"order": 2},
        {"order": 1, "denominator": "count", "output": "rms"},
        {"order": 4, "output": "l2"},
        {"denominator": "count", "output": "gate", "ceiling": None},
        {"denominator": "clamp", "output": "layer"},
    ],
    "test-time-regression": [
        {"forgetting": True, "ridge": 0.3, "shift_keys": 2},
        {"forgetting": True, "qk_norm": False, "form": "woodbury"},
        {"solver": "no-covariance", "forgetting": True},
        {"solver": "gradient", "implicit": True, "qk_norm": False},
        {"solver": "local-constant", "shift_keys": 3},
        {"solver": "local-linear"},
    ],
    "transnormer-llm": [{"layer": 1, "num_layers": 3, "decay": "code", "lrpe": True}, {"gate": False}],
}
HEADS, DIM = 4, 6
EXACT = {"rtol": 0, "atol": 1e-10}


def _label(name, options):
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


CASES = {_label(name, options): (name, options) for name in MECHANISMS for options in [{}, *OPTIONS.get(name, [])]}
CAUSAL = {label: case for label, case in CASES.items() if issubclass(mechanism_class(case[0]), CausalMechanism)}


def each(cases):
    """Run a test for each of these cases, as its argument `case`."""
    return pytest.mark.parametrize("case", list(cases.values()), ids=list(cases))


def make(case, **more):
    """Return the mechanism of a case, whose random parameters do not depend on the tests before."""
    name, options = case
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return mm.create_attention(name, head_dim=DIM, num_heads=HEADS, **options, **more).double()


def tokens(count, *, batch=2, kv_heads=HEADS, dtype=torch.float64, seed=0):
    """Return query, key and value of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, heads, count, DIM, generator=generator, dtype=torch.float64).to(dtype)
        for heads in (HEADS, kv_heads, kv_heads)
    )


def attempt(function, *arguments, **options):
    """Return what a call gives and None, or None and what its ValueError says."""
    try:
        return function(*arguments, **options), None
    except ValueError as error:
        return None, str(error)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return found


def largest_held(module, count, more):
    """Return the largest number of entries while tokens are read in two parts and back, and the state between."""
    whole = [x.requires_grad_() for x in tokens(count + more, batch=1, dtype=torch.float32)]
    mask = torch.ones(1, 1, 1, count, dtype=torch.bool)
    mask[..., 7] = False
    with Largest() as largest:
        first, state = module.prefill(*(x[:, :, :count] for x in whole), attn_mask=mask)
        then, _ = module.step(*(x[:, :, count:] for x in whole), state)
        (first.sum() + then.sum()).backward()
    return largest.numel, state
