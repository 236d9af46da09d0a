"""Automata at lengths never trained: dense and diagonal transitions, a GRU, a GPT (Terzić et al., 2024)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.recurrent.sd_ssm import SelectiveDense
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.training import part, train
from manymax.data.regular import Regular
from manymax.data.task import IGNORED
from manymax.models.gpt import GPT

LANGUAGES = {"parity": 2, "cycle": 5, "dihedral": 4, "alternating": 5}


class Follower(nn.Module):
    """An embedding, one layer that goes over the symbols, and scores at each."""

    def __init__(self, task: Regular, width: int, layer: nn.Module, out: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(task.model_options["vocabulary"], width)
        self.layer = layer
        self.output = nn.Linear(out, task.num_classes)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return scores (B, N, classes)."""
        scores: Tensor = self.output(self.layer(self.embedding(tokens)))
        return scores

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


class Dense(nn.Module):
    """One head of `sd-ssm` on features (B, N, width), which it reads as query, key and value."""

    def __init__(self, width: int, states: int, matrices: int) -> None:
        super().__init__()
        self.mechanism = SelectiveDense(head_dim=width, num_heads=1, state_size=states, num_matrices=matrices)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's outputs (B, N, width)."""
        heads = x[:, None]
        out: Tensor = self.mechanism(heads, heads, heads, is_causal=True)
        return out[:, 0]


class Diagonal(nn.Module):
    """The authors' diagonal baseline: complex transitions of modulus 1, no input; real and imaginary parts come out.

    A product of such transitions is the sum of their angles.
    """

    start: Tensor

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.Linear(width, 4 * states), nn.ReLU(), nn.Linear(4 * states, 2 * states))
        self.register_buffer("start", 2 * math.pi * torch.rand(states))

    def forward(self, x: Tensor) -> Tensor:
        """Return the states (B, N, 2 states)."""
        real, imaginary = self.make(x).chunk(2, -1)
        angle = self.start + torch.atan2(imaginary, real).cumsum(1)
        return torch.cat([angle.cos(), angle.sin()], -1)


class Recurrent(nn.Module):
    """A GRU without its last state."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, states, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the states (B, N, states)."""
        out: Tensor = self.gru(x)[0]
        return out


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train on each language and look at the last places of long sequences."""
    plan = [("dense", language) for language in LANGUAGES]
    plan += [("diagonal", "dihedral"), ("diagonal", "alternating"), ("gru", "dihedral"), ("gpt", "dihedral")]
    metrics: Metrics = {}
    for index, (kind, language) in enumerate(plan):
        task = Regular(language=language, order=LANGUAGES[language], length=numbers["length"])
        torch.manual_seed(seed)
        model = model_of(kind, task, numbers)
        train(model, task, seed, numbers, part(progress, f"{kind}, {language}", index, len(plan)))
        metrics[f"{kind}_{language}"] = accuracy(model.eval(), task, numbers)
        if (kind, language) == ("dense", "alternating"):
            metrics |= state_metrics(model, task, numbers)
    dense = [metrics[f"dense_{language}"] for language in LANGUAGES]
    diagonal = [metrics[f"diagonal_{language}"] for language in ("dihedral", "alternating")]
    return metrics | {"dense_accuracy": min(dense), "diagonal_accuracy": max(diagonal)}


def model_of(kind: str, task: Regular, numbers: Numbers) -> Any:
    """Return a new model of a kind: "dense", "diagonal", "gru" or "gpt"."""
    width, states = numbers["width"], numbers["baseline_states"]
    if kind == "gpt":
        return GPT(**task.model_options, depth=2, width=max(32, width))
    if kind == "dense":
        return Follower(task, width, Dense(width, numbers["states"][task.language], numbers["matrices"]), width)
    if kind == "diagonal":
        return Follower(task, width, Diagonal(width, states), 2 * states)
    return Follower(task, width, Recurrent(width, states), states)


def longer(task: Regular, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """Return the sequences for testing."""
    options = {"test_length": numbers["test_length"], "validation": numbers["tested"]}
    return Regular(language=task.language, order=task.order, length=task.length, **options).held_out()


@torch.no_grad()
def accuracy(model: Any, task: Regular, numbers: Numbers) -> float:
    """Return the share of the last places that get the highest score, in long sequences."""
    inputs, targets = longer(task, numbers)
    last = slice(-numbers["last"], None)
    return float((model.logits(inputs)[:, last].argmax(-1) == targets[:, last]).float().mean())


@torch.no_grad()
def state_metrics(model: Follower, task: Regular, numbers: Numbers) -> Metrics:
    """Return the error of the columns' norms and how the state grows beyond the training length."""
    inputs, _ = longer(task, numbers)
    assert isinstance(model.layer, Dense)
    mechanism = model.layer.mechanism
    heads = model.embedding(inputs)[:, None]
    first, state = numbers["length"], None
    sizes = []
    for piece in (heads[:, :, :first], heads[:, :, first:]):
        _, state = mechanism.scan(piece, piece, piece, None, state)
        sizes.append(float(state.hidden.norm(dim=2).mean()))
    moves = mechanism.transitions(torch.cat([heads[:, :, :first]] * 3, -1).double())
    norms = torch.linalg.vector_norm(moves, ord=mechanism.power, dim=-2)
    return {"column_norm_error": float((norms - 1).abs().max()), "state_growth": sizes[1] / sizes[0]}
