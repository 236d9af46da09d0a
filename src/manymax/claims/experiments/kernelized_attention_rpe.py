"""Kernelized attention with relative positions: exactness, operations, perplexity, divergence (Luo et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from manymax.attention.linear.toeplitz import between_all, between_causal
from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.contests import on_text
from manymax.claims.experiments.costs import slope
from manymax.claims.experiments.training import part
from manymax.data.text import Text

NAME = "kernelized-attention-rpe"


def prf(**sizes: int) -> nn.Module:
    """Return random features without normalisation and distances; the model turns queries and keys by position."""
    module: nn.Module = create_attention(NAME, **sizes, normalize=False, rpe=False)
    module.rotary = True  # type: ignore[assignment]  # read by the model
    return module


def nprf(length: int) -> Callable[..., nn.Module]:
    """Return a factory of normalised features with a weight of each distance up to a length."""

    def make(**sizes: int) -> nn.Module:
        module: nn.Module = create_attention(NAME, **sizes, max_distance=length)
        return module

    return make


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    task = Text(length=numbers["length"])
    kinds = {"prf": prf, "nprf": nprf(numbers["length"]), "softmax": "softmax"}
    losses: dict[str, list[float]] = {name: [] for name in kinds}
    rates = numbers["rates"]
    for index, rate in enumerate(rates):
        tell = part(progress, f"rate {rate:g}", index, len(rates))
        runs = on_text(kinds, task, seed, {**numbers, "learning_rate": rate}, tell)
        for name, learnt in runs.items():
            losses[name].append(learnt.loss)
    chance = math.log(task.num_classes)
    diverged = {name: sum(loss > chance for loss in found) for name, found in losses.items()}
    best = {name: min(found) for name, found in losses.items()}
    return {
        "perplexity_ratio": math.exp(best["nprf"] - best["prf"]),
        "more_diverged": diverged["nprf"] - diverged["prf"],
        "prf_diverged": diverged["prf"],
        "softmax_perplexity_ratio": math.exp(best["nprf"] - best["softmax"]),
        "transform_error": transform_error(seed, **numbers["forms"]),
        **operations(seed, **numbers["operations"]),
    }


@torch.no_grad()
def transform_error(seed: int, *, tokens: int, width: int) -> float:
    """Return how far outputs in float32 by FFT are from those of all pairs in float64, relative to the largest."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 1, 1, tokens, width, generator=generator).unbind()
    torch.manual_seed(seed)
    module: Any = create_attention(NAME, head_dim=width, num_heads=1, max_distance=tokens)
    nn.init.normal_(module.bias, generator=generator)
    errors = []
    for causal in (False, True):
        expected = all_pairs(module, query.double(), key.double(), value.double(), causal=causal)
        found = module(query, key, value, is_causal=causal)
        errors.append(float((found - expected).abs().max() / expected.abs().max()))
    return max(errors)


def all_pairs(module: Any, query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """Return the output from the matrix of weights of all pairs."""
    tokens = query.shape[2]
    place = torch.arange(tokens)
    distance = place - place[:, None]  # j - i
    weights = module.features(query) @ module.features(key).transpose(2, 3)
    weights = weights * module.bias.double().exp()[:, distance + module.window]
    weights = weights.tril() if causal else weights
    out: Tensor = weights @ value / weights.sum(-1, keepdim=True)
    return out


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating point operations: 2.5 n log2 n for a real transform, 2 for a product in a sum, 1 for others."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it takes."""
        del types
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in {"_fft_r2c", "_fft_c2r"}:
            real = args[0] if name == "_fft_r2c" else out
            self.count += 2.5 * real.numel() * math.log2(real.shape[args[1][0]])
        elif name in {"mm", "bmm"}:
            self.count += 2 * out.numel() * args[0].shape[-1]
        elif name in {"mul", "add", "div", "sum", "exp", "sub"} and isinstance(args[0], Tensor):
            self.count += max(args[0].numel(), out.numel())
        return out


@torch.no_grad()
def operations(seed: int, *, width: int, lengths: list[int]) -> Metrics:
    """Return how operations of both Toeplitz products grow with the tokens, as powers, all seeing all and causal."""
    generator = torch.Generator().manual_seed(seed)
    found: Metrics = {}
    for name, causal in {"operations_slope": False, "causal_operations_slope": True}.items():
        costs = []
        for tokens in lengths:
            query, key = torch.rand(2, 1, 1, tokens, width, generator=generator)
            value = torch.rand(1, 1, tokens, width + 1, generator=generator)
            weights = torch.rand(1, tokens if causal else 2 * tokens - 1, generator=generator)
            with Operations() as counter:
                (between_causal if causal else between_all)(query, key, value, weights)
            costs.append(counter.count)
        found[name] = slope(lengths, costs)
    return found
