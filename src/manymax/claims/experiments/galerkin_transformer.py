"""Galerkin attention on Burgers' equation: errors, time, other numbers of points (Cao, 2021)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.burgers import Burgers
from manymax.claims.experiments.costs import attending, one_thread
from manymax.claims.experiments.timing import best_times
from manymax.claims.experiments.training import part, train

NAME = "galerkin-transformer"
KINDS = ("softmax", "galerkin", "fourier")
START = 1e-2  # gain of the projections' start, and what is added to their diagonals


class Operator(nn.Module):
    """A transformer from functions to functions: attention without norms between, spectral convolutions at the end.

    Args:
        kind: of the attention.
        width: features of a point.
        heads: number of heads.
        depth: blocks.
        modes: frequencies that spectral convolutions change.
    """

    def __init__(self, kind: str, *, width: int, heads: int, depth: int, modes: int) -> None:
        super().__init__()
        self.lift = nn.Linear(2, width)
        self.blocks = nn.ModuleList(OperatorBlock(kind, width, heads) for _ in range(depth))
        self.spectral = nn.ModuleList(SpectralConvolution(width, modes) for _ in range(2))
        self.project = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 1))

    def functions(self, start: Tensor) -> Tensor:
        """Return functions (B, points) for functions (B, points)."""
        points = start.shape[1]
        place = torch.arange(points, dtype=start.dtype) / points
        x = self.lift(torch.stack([start, place.expand_as(start)], -1))
        for block in self.blocks:
            x = block(x)
        for layer in self.spectral:
            x = layer(x)
        found: Tensor = self.project(x).squeeze(-1)
        return found

    def forward(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the mean over functions of the relative error in the L2 norm."""
        missed, size = (torch.linalg.vector_norm(x, dim=1) for x in (self.functions(start) - end, end))
        error: Tensor = (missed / size).mean()
        return error


class OperatorBlock(nn.Module):
    """x + attention(x), then x + MLP(x), with coordinates in every head."""

    def __init__(self, kind: str, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        for linear in self.query_key_value:
            weight, bias = linear.parameters()
            nn.init.xavier_uniform_(weight, gain=START)
            nn.init.zeros_(bias)
            with torch.no_grad():
                weight.add_(START * torch.eye(width))
        self.mechanism = create_attention(NAME, head_dim=width // heads, num_heads=heads, kind=kind, pos_dim=1)
        self.output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, points, width)."""
        batch, points, width = x.shape
        shape = (batch, points, self.heads, width // self.heads)
        query, key, value = (linear(x).reshape(shape).transpose(1, 2) for linear in self.query_key_value)
        mixed = self.mechanism(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.output(mixed)
        after: Tensor = x + self.mlp(x)
        return after


class SpectralConvolution(nn.Module):
    """A linear map of each of the lowest frequencies beside one of each point, and SiLU (Li et al., 2020)."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(2, modes, width, width) / width)
        self.point = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, points, width)."""
        spectrum = torch.fft.rfft(x, dim=1)[:, : self.modes]
        changed = torch.einsum("bmi,mio->bmo", spectrum, torch.complex(self.weight[0], self.weight[1]))
        return F.silu(self.point(x) + torch.fft.irfft(changed, n=x.shape[1], dim=1))


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    coarse, fine = numbers["points"]
    task = Burgers(points=coarse, **numbers["burgers"])
    finer = replace(task, points=fine, count=1)  # for testing alone
    errors, transfers = {}, {}
    for index, kind in enumerate(KINDS):
        torch.manual_seed(seed)
        model = Operator(kind, **numbers["model"])
        train(model, task, seed, numbers, part(progress, kind, index, len(KINDS)))
        with torch.no_grad():
            errors[kind], on_finer = (float(model.eval()(*each.held_out())) for each in (task, finer))
        transfers[kind] = on_finer / errors[kind]
    return {
        "error_ratio": errors["galerkin"] / errors["softmax"],
        "time_ratio": time_ratio(seed, **numbers["time"]),
        "finer_error_ratio": transfers["galerkin"],
        "order_difference": order_difference(seed, **numbers["forms"]),
        "softmax_error": errors["softmax"],
        "fourier_error_ratio": errors["fourier"] / errors["softmax"],
        "softmax_finer_error_ratio": transfers["softmax"],
    }


@torch.no_grad()
def time_ratio(seed: int, *, tokens: int, width: int, rounds: int, seconds: float) -> float:
    """Return the time of softmax over that of Galerkin attention, forward, one head, one thread."""
    modules = [create_attention(NAME, head_dim=width, num_heads=1, kind=kind) for kind in ("softmax", "galerkin")]
    with one_thread():
        softmax, galerkin = best_times([attending(m, 1, width, seed)(tokens) for m in modules], rounds, seconds)
    return softmax / galerkin


@torch.no_grad()
def order_difference(seed: int, *, tokens: int, width: int) -> float:
    """Return the largest difference between products from the right in float32 and from the left in float64."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 1, 1, tokens, width, generator=generator).unbind()
    module = create_attention(NAME, head_dim=width, num_heads=1)
    key64, value64 = (F.layer_norm(x.double(), (width,)) for x in (key, value))
    expected = (query.double() @ key64.transpose(2, 3)) @ value64 / tokens
    return float((module(query, key, value) - expected).abs().max())
