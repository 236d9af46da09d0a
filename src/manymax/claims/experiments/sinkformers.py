"""Shapes of points classified with softmax and with Sinkhorn (Sander et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.shapes import KINDS, clouds
from manymax.claims.experiments.training import part, train
from manymax.data.digits import Digits
from manymax.data.task import ACCURACY, Examples, Recipe, Split, Task, stream
from manymax.maps.sinkhorn import sinkhorn
from manymax.maps.softmax import softmax
from manymax.models.evaluate import evaluate
from manymax.models.layers import Block, Factory, Size, linear
from manymax.models.parts import attach_attention
from manymax.models.probe import probe
from manymax.models.vit import ViT

ACCURATE = 21  # iterations for the sums of rows and columns


@dataclass(frozen=True)
class Shapes(Task):
    """Clouds of points on surfaces, (batch, points, 3), and the surface's kind."""

    name: ClassVar = "shapes"
    kind: ClassVar = "classification"
    family: ClassVar = "vit"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=32, steps=400, learning_rate=2e-3, warmup=20)

    points: int = 64
    noise: float = 0.1
    tested: int = 1024

    @property
    def num_classes(self) -> int:
        """Return the number of kinds."""
        return len(KINDS)

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the number of kinds."""
        return {"num_classes": self.num_classes}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return new clouds."""
        del split  # clouds are never drawn twice
        return clouds(count, self.points, self.noise, generator)

    def held_out(self) -> Examples:
        """Return the clouds for testing."""
        return self.draw("validation", self.tested, stream(self.name, "validation"))


class SetTransformer(nn.Module):
    """Blocks of attention over points without positions; the mean is classified.

    Args:
        size: of the blocks.
        num_classes: number of classes.
        attention: a name or a function that makes a mechanism.
    """

    def __init__(self, size: Size, num_classes: int, attention: str | Factory) -> None:
        super().__init__()
        self.embedding = linear(3, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.RMSNorm(size.width)
        self.head = linear(size.width, num_classes)
        attach_attention(self.blocks, attention, size)

    def features(self, points: Tensor) -> Tensor:
        """Return features (B, width) of clouds (B, N, 3)."""
        x = self.embedding(points)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)  # type: ignore[no-any-return]

    def logits(self, points: Tensor) -> Tensor:
        """Return one score a class."""
        return self.head(self.features(points))  # type: ignore[no-any-return]

    def forward(self, points: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return nn.functional.cross_entropy(self.logits(points), targets)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train with softmax and with Sinkhorn from the same start, and look at what their attention does."""
    task = Shapes(points=numbers["points"], noise=numbers["noise"], tested=numbers["tested"])
    size = Size.of(numbers["depth"], numbers["width"], numbers["heads"], None, None)
    sinkhorn_attention = partial(create_attention, "sinkhorn", iterations=numbers["iterations"])
    seen, _ = task.batch("validation", 0, min(64, task.tested), seed=seed)
    attentions: dict[str, str | Factory] = {"softmax": "softmax", "sinkhorn": sinkhorn_attention}
    models, accuracy, spread = {}, {}, []
    for index, (name, attention) in enumerate(attentions.items()):
        torch.manual_seed(seed)
        models[name] = model = SetTransformer(size, task.num_classes, attention)
        if name == "softmax":
            spread.append(column_spread(model, seen))
        train(model, task, seed, numbers, part(progress, name, index, 3))
        accuracy[name] = evaluate(model, task, batch_size=256)
    spread.append(column_spread(models["softmax"], seen))
    return {
        "accuracy_gain": accuracy["sinkhorn"] - accuracy["softmax"],
        **balance(models["sinkhorn"], seen),
        "column_spread_ratio": spread[1] / spread[0],
        "column_spread_before": spread[0],
        "softmax_accuracy": accuracy["softmax"],
        "sinkhorn_accuracy": accuracy["sinkhorn"],
        "digits_column_spread_ratio": digits_spread_ratio(seed, numbers, part(progress, "digits", 2, 3)),
    }


def scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the scores of all layers of a model, (layers * B, H, N, N)."""
    return torch.cat([layer.scores for layer in probe(model, inputs)])


def column_spread(model: nn.Module, inputs: Tensor) -> float:
    """Return the standard deviation of the column sums of softmax attention, which are 1 on average."""
    return float(softmax(scores(model, inputs)).sum(-2).std())


def balance(model: nn.Module, inputs: Tensor) -> Metrics:
    """Return how far Sinkhorn's rows and columns are from summing to 1, and one iteration from softmax."""
    found = scores(model, inputs)
    weights = sinkhorn(found, iterations=ACCURATE)
    return {
        "row_error": float((weights.sum(-1) - 1).abs().max()),
        "column_error": float((weights.sum(-2) - 1).abs().max()),
        "softmax_difference": float((sinkhorn(found, iterations=1) - torch.softmax(found, -1)).abs().max()),
    }


def digits_spread_ratio(seed: int, numbers: Numbers, progress: Progress) -> float | Untestable:
    """Return the ratio of column spreads after and before training a ViT, if scikit-learn is there."""
    task = Digits()
    try:
        options = task.model_options
    except ImportError as error:
        return Untestable(str(error))
    torch.manual_seed(seed)
    model = ViT(**options, depth=numbers["depth"], width=numbers["width"])
    inputs, _ = task.held_out()
    before = column_spread(model, inputs[:128])
    train(model, task, seed, numbers, progress)
    return column_spread(model, inputs[:128]) / before
