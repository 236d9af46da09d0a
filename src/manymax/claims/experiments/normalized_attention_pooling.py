"""Normalised attention weights against softmax in BERT's block (Richter and Wattenhofer, 2020)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.cases import Cases
from manymax.claims.experiments.hull import outside_hull
from manymax.models.evaluate import evaluate

NORM_EPS = 1e-3  # of every layer norm, as in the authors' Keras
START = 0.02  # standard deviation of all weights, cut at two of them, as in BERT


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=NORM_EPS)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class Pooling(nn.Module):
    """The attention sublayer, before the residual: with softmax as in BERT, or NAP's with normalised weights.

    NAP normalises scores that are not divided by the square root of the head's width, with a gain and a bias a head,
    and puts a layer norm and GELU between heads and output, and a layer norm behind it.
    """

    def __init__(self, width: int, heads: int, *, nap: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        options: dict[str, Any] = {"head_dim": width // heads, "num_heads": heads}
        if nap:
            gain, bias = nn.Parameter(torch.ones(heads, 1, 1)), nn.Parameter(torch.zeros(heads, 1, 1))
            self.mechanism = create_attention("normalized", **options, scale=1.0, gain=gain, bias=bias)
        else:
            self.mechanism = create_attention("softmax", **options, backend="reference")
        self.hidden_norm = _norm(width) if nap else None
        self.output_norm = _norm(width) if nap else None

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to x (B, N, width)."""
        query, key, value = self.query_key_value(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        hidden = self.mechanism(query, key, value).transpose(1, 2).flatten(2)
        if self.hidden_norm is None or self.output_norm is None:
            return self.output(hidden)  # type: ignore[no-any-return]
        return self.output_norm(self.output(_gelu(self.hidden_norm(hidden))))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pooling and an MLP: BERT normalises after each residual, NAP each update before it and the hidden features."""

    def __init__(self, width: int, heads: int, *, nap: bool) -> None:
        super().__init__()
        self.nap = nap
        self.pooling = Pooling(width, heads, nap=nap)
        self.hidden, self.output = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([_norm(4 * width), _norm(width)] if nap else [_norm(width), _norm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, N, width) after both."""
        first, second = self.norms
        if self.nap:
            x = x + self.pooling(x)
            return x + second(self.output(_gelu(first(self.hidden(x)))))  # type: ignore[no-any-return]
        x = first(x + self.pooling(x))
        return second(x + self.output(_gelu(self.hidden(x))))  # type: ignore[no-any-return]


class Pointer(nn.Module):
    """Tokens to one score a place, by two blocks."""

    def __init__(self, task: Cases, width: int, heads: int, *, nap: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(task.vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(task.length, width))
        self.blocks = nn.Sequential(*(Block(width, heads, nap=nap) for _ in range(2)))
        self.score = nn.Linear(width, 1)
        start(self)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return scores (B, N)."""
        return self.score(self.blocks(self.embedding(tokens) + self.positions)).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(self.logits(tokens), places)


def start(model: nn.Module) -> None:
    """Draw every matrix from a truncated normal, biases zero."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.trunc_normal_(parameter, std=START, a=-2 * START, b=2 * START)
        elif name.endswith("bias") and parameter.dim() == 1:
            nn.init.zeros_(parameter)


def train(model: Pointer, task: Cases, seed: int, rate: float, numbers: Numbers) -> None:
    """Train with Adam and a rate that falls to zero; BERT warms up and cuts its gradients at norm 1."""
    steps, bert = numbers["steps"], not model.blocks[0].nap
    warmup = max(1, steps // 10) if bert else 1
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-7)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min((step + 1) / warmup, (steps - step) / (steps - warmup + 1))
        loss = model(*task.batch("train", step, numbers["batch_size"], seed=seed))
        optimizer.zero_grad()
        loss.backward()
        if bert:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the grid with both blocks, look at the heads' outputs, and measure the slopes at the start."""
    task = Cases(numbers["length"], numbers["tested"])
    sequences, _ = task.batch("validation", 0, 2, seed=seed)
    kinds = {"nap": True, "softmax": False}
    grid = list(itertools.product(numbers["sizes"], numbers["exponents"], kinds))
    accuracy: dict[str, list[float]] = {kind: [] for kind in kinds}
    outside: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for done, ((width, heads), exponent, kind) in enumerate(grid):
        progress(done / len(grid), f"{kind}, width {width}, {heads} heads, rate 0.3^{exponent}")
        torch.manual_seed(seed)
        model = Pointer(task, width, heads, nap=kinds[kind])
        train(model, task, seed, 0.3**exponent, numbers)
        accuracy[kind].append(evaluate(model.eval(), task, batch_size=250))
        outside[kind].append(head_outputs_outside(model, sequences))
    shares = {kind: sum(value > 0.9 for value in values) / len(values) for kind, values in accuracy.items()}
    metrics: Metrics = {"robust_share_ratio": _ratio(shares["nap"], shares["softmax"])}
    for kind in kinds:
        gaps = torch.cat(outside[kind])
        metrics[f"{kind}_outside_hull"] = float((gaps > 0).double().mean())
        metrics[f"{kind}_share"] = shares[kind]
        metrics[f"{kind}_accuracy"] = sum(accuracy[kind]) / len(accuracy[kind])
    slopes = {kind: slope(seed, numbers, nap=nap) for kind, nap in kinds.items()}
    return metrics | {"softmax_slope": slopes["softmax"], "nap_slope_size": abs(slopes["nap"])}


def _ratio(above: float, below: float) -> float:
    """Return above / below; infinite if only below is zero, NaN if both are."""
    if below:
        return above / below
    return math.inf if above else math.nan


@torch.no_grad()
def head_outputs_outside(model: Pointer, sequences: Tensor) -> Tensor:
    """Return how far each head's output is outside the hull of its values, in float64; a diverged model has none."""
    blocks: Any = model.double().blocks
    calls: list[tuple[Tensor, Tensor]] = []
    hooks = [
        block.pooling.mechanism.register_forward_hook(lambda _, inputs, output: calls.append((output, inputs[2])))
        for block in blocks
    ]
    model.logits(sequences)
    for hook in hooks:
        hook.remove()
    finite = [(output, value) for output, value in calls if output.isfinite().all() and value.isfinite().all()]
    return torch.cat([torch.zeros(0), *(outside_hull(*call).flatten() for call in finite)])


@torch.no_grad()
def slope(seed: int, numbers: Numbers, *, nap: bool) -> float:
    """Return the slope of log variance ratio over log n at the start, by least squares."""
    torch.manual_seed(seed)
    width = numbers["slope_width"]
    pooling = Pooling(width, 4, nap=nap)
    start(pooling)
    logs = []
    for n in numbers["slope_lengths"]:
        x = torch.randn(max(1, 2048 // n), n, width)
        logs.append((math.log(n), math.log(float(pooling(x).var()) / float(x.var()))))
    points = torch.tensor(logs, dtype=torch.float64)
    centred = points - points.mean(0)
    return float((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())
