"""Retrieval of digits that were not trained: a scale and margin that adapt, against a grid (Zhu et al., 2023)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.embeddings import Embedder, convolutional, digits, mean_average_precision, only
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part, trained
from manymax.heads.madacos import MadaCosHead
from manymax.heads.registry import create_head

METRICS = (
    "points_of_grid",
    "points_of_normalised",
    "scale_trend",
    "margin_trend",
    "map",
    "arcface_map",
    "softmax_map",
    "last_scale",
    "last_margin",
)
TRAINED = 5  # digits 0 to 4


class Watched(MadaCosHead):
    """MadaCos that remembers its scale and margin of each batch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scales: list[float] = []
        self.margins: list[float] = []

    def forward(self, input: Tensor, target: Tensor, *, candidates: Tensor | None = None) -> Tensor:
        """Return the loss."""
        loss = super().forward(input, target, candidates=candidates)
        self.scales.append(float(self.adaptive_scale))
        self.margins.append(float(self.adaptive_margin))
        return loss


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train every contender on half of the digits and retrieve the others."""
    try:
        examples = digits()
    except ImportError as error:
        return dict.fromkeys(METRICS, Untestable(str(error)))
    task = Given(only(examples, range(TRAINED)), only(examples, range(TRAINED, 10)))
    dim = numbers["dim"]
    sizes = {"in_features": dim, "num_classes": TRAINED}
    grid = [
        partial(create_head, "cosface", scale=float(scale), margin=float(margin), **sizes)
        for scale in numbers["scales"]
        for margin in numbers["margins"]
    ]
    heads = [
        partial(Watched, **sizes),
        partial(create_head, "hyperspherical-embedding", **sizes),
        partial(create_head, "arcface", **sizes),
        partial(create_head, "softmax", **sizes),
        *grid,
    ]
    found, models = [], []
    for index, head in enumerate(heads):
        tell = part(progress, f"head {index + 1}", index, len(heads))

        def make(head: Any = head) -> Embedder:
            return Embedder(convolutional(dim, numbers["channels"]), head())

        models.append(trained(make, task, seed, numbers, tell))
        images, labels = task.validation
        found.append(100 * mean_average_precision(models[-1].embed(images), labels))
    ours = models[0].head
    return {
        "points_of_grid": found[0] - max(found[4:]),
        "points_of_normalised": found[0] - found[1],
        "scale_trend": trend(ours.scales),
        "margin_trend": trend(ours.margins),
        "map": found[0],
        "arcface_map": found[2],
        "softmax_map": found[3],
        "last_scale": ours.scales[-1],
        "last_margin": ours.margins[-1],
    }


def trend(values: list[float]) -> float:
    """Return Spearman's correlation of values with their order, ties sharing their mean rank; 0 if all are equal."""
    numbers = torch.tensor(values, dtype=torch.float64)
    if bool((numbers == numbers[0]).all()):
        return 0.0
    ordered = numbers.sort().values
    ranks = sum(torch.searchsorted(ordered, numbers, right=right).double() for right in (False, True))
    return float(torch.corrcoef(torch.stack([torch.as_tensor(ranks), torch.arange(len(numbers)).double()]))[0, 1])
