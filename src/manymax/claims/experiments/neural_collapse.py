"""Free features behind linear layers, balanced and imbalanced (Dang et al., 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.diagnose.collapse_metrics import NeuralCollapse, neural_collapse

LEAST = 1e-12  # a metric below it is 0 but for rounding


class Free(NamedTuple):
    """Features (n, width), the layers' weights from the first to the last, and the last one's bias."""

    features: Tensor
    weights: list[Tensor]
    bias: Tensor | None

    def read(self) -> Tensor:
        """Return what the last layer reads, (n, width)."""
        return reduce(lambda x, w: x @ w.T, self.weights[:-1], self.features)

    def collapse(self, labels: Tensor) -> NeuralCollapse:
        """Return the four numbers of the last layer."""
        frame = "orthogonal" if self.bias is None else "simplex"
        return neural_collapse(self.read(), labels, self.weights[-1], self.bias, frame=frame)


def start(width: int, classes: int, count: int, layers: int, *, biased: bool, generator: torch.Generator) -> Free:
    """Return normal features and weights that keep their scale."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    rows = [width] * (layers - 1) + [classes]
    weights = [(draw(row, width).detach() * width**-0.5).requires_grad_() for row in rows]
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True) if biased else None
    return Free(draw(count, width), weights, bias)


def minimise(free: Free, labels: Tensor, decay: float, iterations: int) -> float:
    """Minimise the mean loss, squared error without a bias and cross-entropy with one, plus decay on everything."""
    parameters = [free.features, *free.weights, *([] if free.bias is None else [free.bias])]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=iterations,
        history_size=30,
        tolerance_grad=1e-11,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )
    target = F.one_hot(labels, free.weights[-1].shape[0]).double()

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = free.read() @ free.weights[-1].T
        if free.bias is None:
            loss = (scores - target).square().sum() / (2 * len(labels))
        else:
            loss = F.cross_entropy(scores + free.bias, labels)
        loss = loss + decay / 2 * sum(x.square().sum() for x in parameters)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(closure().detach())


def lengths(sizes: Sequence[int], decay: float) -> list[float]:
    r"""Return the closed form of each weight row's squared length for one layer, squared error and no bias.

    $\lVert w_k \rVert^2 = p_k \sqrt{n_k}$ with $p_k = \max(0, 1 - N \lambda / \sqrt{n_k})$, $n_k$ samples of class k of
    $N$ and the decay $\lambda$ on weights and features alike.
    """
    total = sum(sizes)
    return [max(0.0, 1 - total * decay / math.sqrt(n)) * math.sqrt(n) for n in sizes]


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Minimise the balanced problems and the imbalanced one."""
    generator = torch.Generator().manual_seed(seed)
    classes, samples = numbers["classes"], numbers["samples"]
    labels = torch.arange(classes).repeat_interleave(samples)
    ratios: list[list[float]] = []
    last: list[float] = []
    for layers in numbers["layers"]:
        for biased in (False, True):
            progress(len(ratios) / (2 * len(numbers["layers"]) + 1), f"{layers} layers")
            tried = []
            for _ in range(numbers["starts"]):
                free = start(numbers["width"], classes, len(labels), layers, biased=biased, generator=generator)
                before = free.collapse(labels)
                loss = minimise(free, labels, numbers["decay"], numbers["iterations"])
                tried.append((loss, before, free.collapse(labels)))
            _, before, after = min(tried)
            ratios.append([x / max(y, LEAST) for x, y in zip(before[:3], after[:3], strict=True)])
            last.append(after.nc4)
    least = [min(column) for column in zip(*ratios, strict=True)]
    return {
        **dict(zip(("nc1_decrease", "nc2_decrease", "nc3_decrease"), least, strict=True)),
        **imbalanced(numbers, generator),
        "nc4": max(last),
    }


def imbalanced(numbers: Numbers, generator: torch.Generator) -> Metrics:
    """Return how far the imbalanced minimiser is from the closed form."""
    sizes, decay = numbers["sizes"], numbers["imbalanced_decay"]
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    free = start(numbers["width"], len(sizes), len(labels), 1, biased=False, generator=generator)
    minimise(free, labels, decay, numbers["iterations"])
    weight = free.weights[0].detach()
    squares, wanted = weight.square().sum(1), torch.tensor(lengths(sizes, decay), dtype=torch.float64)
    there = wanted > 0
    unit = F.normalize(weight[there], dim=1)
    outputs = (free.features.detach() @ weight.T).gather(1, labels[:, None])[:, 0]
    gone = outputs[~there[labels]]
    return {
        "length_error": float((squares[there] / wanted[there] - 1).abs().max()),
        "cosine": float((unit @ unit.T - torch.eye(len(unit), dtype=unit.dtype)).abs().max()),
        "vanished": float(gone.abs().max()) if len(gone) else 0.0,
    }
