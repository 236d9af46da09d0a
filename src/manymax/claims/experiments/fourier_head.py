"""Densities over bins, learnt by a Fourier series or by softmax (Gillman et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.tables import Classifier, Table, mlp
from manymax.claims.experiments.training import part, train
from manymax.data.task import stream
from manymax.heads.fourier import FourierHead
from manymax.heads.head import Head
from manymax.heads.softmax import SoftmaxHead

SPREAD = 0.1  # of the normal densities
SHAPE = 100.0  # of the beta densities: the larger, the narrower
LARGEST_SIGMA = 100  # of the filters that smoothness is measured with, as in the authors' code


def normal(middles: Tensor, x: Tensor) -> Tensor:
    """Return normal densities around the second input, up to a factor, (n, m)."""
    return (-0.5 * ((middles - x[:, 1:]) / SPREAD).square()).exp()


def mixture(middles: Tensor, x: Tensor) -> Tensor:
    """Return densities with a normal part around each input."""
    return normal(middles, x) + normal(middles, x.flip(1))


def beta(middles: Tensor, x: Tensor) -> Tensor:
    """Return beta densities of parameters 1 + 100 |x| and 1 + 100 |y|, mirrored where x is below 0."""
    a, b = (1 + SHAPE * x[:, :1].abs()), (1 + SHAPE * x[:, 1:].abs())
    place = (1 + torch.where(x[:, :1] < 0, -middles, middles)) / 2
    logs = (a - 1) * place.log() + (b - 1) * (1 - place).log()
    found: Tensor = (logs - logs.amax(1, keepdim=True)).exp()
    return found


DENSITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"normal": normal, "mixture": mixture, "beta": beta}


def probabilities(name: str, x: Tensor, bins: int) -> Tensor:
    """Return the true weights of the bins for inputs (n, 2), (n, bins)."""
    middles = -1 + (1 + 2 * torch.arange(bins, dtype=torch.float64)) / bins
    density = DENSITIES[name](middles, x.double())
    return density / density.sum(1, keepdim=True)


def drawn(name: str, seed: int, *, bins: int, count: int, tested: int) -> Table:
    """Return inputs, evenly from (-0.8, 0.8) squared, each with a bin drawn from its density."""
    generator = stream(name, seed)
    x = 1.6 * torch.rand(count + tested, 2, generator=generator) - 0.8
    y = torch.multinomial(probabilities(name, x, bins), 1, generator=generator)[:, 0]
    return Table((x[:count], y[:count]), (x[count:], y[count:]), bins)


def learnt(make: Callable[[int], Head], table: Table, seed: int, numbers: Numbers, progress: Progress) -> Tensor:
    """Return a trained model's weights of the bins for the test inputs, (n, bins), in float64."""
    torch.manual_seed(seed)
    model = Classifier(mlp(2, numbers["hidden"], 2), make(numbers["hidden"]))
    train(model, table, seed, numbers, progress)
    with torch.no_grad():
        inputs, _ = table.held_out()
        return model.head.log_weights(model.scores(inputs).double()).exp()


def divergence(true: Tensor, found: Tensor) -> float:
    """Return the mean of KL(true || found) over rows."""
    tiny = torch.finfo(found.dtype).tiny
    return float((true * (true.clamp_min(tiny).log() - found.clamp_min(tiny).log())).sum(1).mean())


def roughness(weights: Tensor) -> float:
    r"""Return the mean over rows of $\sum_\sigma 6 / (\pi \sigma)^2 \lVert y - g_\sigma * y \rVert_2$.

    $g_\sigma$ is a normal filter that wraps around, cut at the row's length as in the authors' code.
    """
    bins = weights.shape[1]
    reach = torch.arange(1 - bins, bins, dtype=weights.dtype)
    total = torch.zeros((), dtype=weights.dtype)
    for sigma in range(1, LARGEST_SIGMA + 1):
        filter = (-0.5 * (reach / sigma).square()).exp()
        wrapped = torch.zeros(bins, dtype=weights.dtype).index_add(0, reach.long() % bins, filter / filter.sum())
        smooth = torch.fft.irfft(torch.fft.rfft(weights) * torch.fft.rfft(wrapped), n=bins)
        total = total + 6 / (math.pi * sigma) ** 2 * (weights - smooth).norm(dim=1).mean()
    return float(total)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    bins, sweep = numbers["data"]["bins"], numbers["sweep"]
    count = 2 * len(DENSITIES) + len(sweep)

    def fourier(frequencies: int) -> Callable[[int], Head]:
        return lambda width: FourierHead(width, bins, frequencies=frequencies, bias=True)

    def compare(name: str, make: Callable[[int], Head], index: int) -> tuple[Tensor, Tensor]:
        table = drawn(name, seed, **numbers["data"])
        found = learnt(make, table, seed, numbers, part(progress, name, index, count))
        return probabilities(name, table.held_out()[0], bins), found

    metrics: Metrics = {}
    rough, least, off = {"fourier": 0.0, "softmax": 0.0}, 0.0, 0.0
    for index, name in enumerate(DENSITIES):
        true, ours = compare(name, fourier(numbers["frequencies"]), 2 * index)
        _, theirs = compare(name, lambda width: SoftmaxHead(width, bins, bias=True), 2 * index + 1)
        metrics[f"{name}_ratio"] = divergence(true, ours) / divergence(true, theirs)
        metrics[f"{name}_softmax"] = divergence(true, theirs)
        rough["fourier"] += roughness(ours)
        rough["softmax"] += roughness(theirs)
        least, off = min(least, float(ours.min())), max(off, float((ours.sum(1) - 1).abs().max()))
    metrics |= {"roughness_ratio": rough["fourier"] / rough["softmax"], "least_weight": least, "sum_error": off}
    for index, frequencies in enumerate(sweep):
        true, ours = compare("mixture", fourier(frequencies), 2 * len(DENSITIES) + index)
        metrics[f"mixture_{frequencies}"] = divergence(true, ours)
    return metrics
