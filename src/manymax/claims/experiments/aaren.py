"""Aaren against a transformer: exactness of the scan, learning, memory (Feng et al., 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.attention.recurrent.scan import FORMS
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.training import part, train, validation_loss
from manymax.data.digits import Digits
from manymax.data.task import ACCURACY, IGNORED, Examples, Recipe, Split, Task, stream
from manymax.models.evaluate import evaluate
from manymax.models.layers import Block, Size
from manymax.models.parts import attach_attention

LEVELS = 64  # of a series' values
BRIGHTNESS = 17  # of a pixel of scikit-learn's digits


class Sequence(nn.Module):
    """Causal blocks over tokens with learnt positions, and scores at every token."""

    def __init__(self, vocabulary: int, num_classes: int, length: int, numbers: Numbers, attention: str) -> None:
        super().__init__()
        size = Size.of(numbers["depth"], numbers["width"], numbers["heads"], None, None)
        self.embedding = nn.Embedding(vocabulary, size.width)
        self.position = nn.Parameter(0.1 * torch.randn(length, size.width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.RMSNorm(size.width)
        self.output = nn.Linear(size.width, num_classes)
        attach_attention(self, attention, size)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return scores (B, N, classes)."""
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, is_causal=True)
        scores: Tensor = self.output(self.norm(x))
        return scores

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss where something is asked."""
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@dataclass(frozen=True)
class Series(Task):
    """Sums of two sines of random frequency and phase and of autoregressive noise, in levels; the next is asked."""

    name: ClassVar = "series"
    kind: ClassVar = "language"
    family: ClassVar = "gpt"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=32, steps=400, learning_rate=3e-3, warmup=30)

    length: int = 96
    tested: int = 256

    @property
    def num_classes(self) -> int:
        """Return the number of levels."""
        return LEVELS

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the number of levels."""
        return {"vocabulary": LEVELS}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return new series; the splits differ by their stream of random numbers."""
        del split
        time = torch.arange(self.length + 1)
        frequency = 2 * math.pi * (0.02 + 0.1 * torch.rand(count, 2, 1, generator=generator))
        phase = 2 * math.pi * torch.rand(count, 2, 1, generator=generator)
        noise = 0.1 * torch.randn(count, self.length + 1, generator=generator)
        for t in range(1, self.length + 1):
            noise[:, t] += 0.7 * noise[:, t - 1]
        value = (frequency * time + phase).sin().sum(1) + noise
        levels = ((value + 2.5) / 5 * LEVELS).long().clamp(0, LEVELS - 1)
        return levels[:, :-1], levels[:, 1:]

    def held_out(self) -> Examples:
        """Return the series for testing."""
        return self.draw("validation", self.tested, stream(self.name, "validation"))


@dataclass(frozen=True)
class Pixels(Digits):
    """Digits as sequences of pixels; the class is asked at the last."""

    name: ClassVar = "pixels"

    def examples(self, split: Split) -> Examples:
        """Return levels (n, pixels), and targets of which the last alone is asked."""
        images, labels = super().examples(split)
        tokens = (images.flatten(1) * (BRIGHTNESS - 1)).round().long()
        targets = torch.full_like(tokens, IGNORED)
        targets[:, -1] = labels
        return tokens, targets


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    progress(0.0, "exactness")
    metrics: Metrics = {"scan_error": scan_error(seed, numbers["error_length"]), **growth()}
    series = Series(length=numbers["length"], tested=numbers["tested"])
    losses = []
    for index, name in enumerate(("aaren", "softmax")):
        model = learnt(series, LEVELS, series.length, name, seed, numbers, part(progress, f"series, {name}", index, 4))
        losses.append(validation_loss(model, series))
    metrics |= {"forecast_loss_ratio": losses[0] / losses[1], "transformer_forecast_loss": losses[1]}
    pixels, losses, shares = Pixels(), [], []
    names = ("digits_loss_ratio", "transformer_digits_loss", "aaren_digits_accuracy", "transformer_digits_accuracy")
    try:
        length = pixels.examples("train")[0].shape[1]
    except ImportError as error:
        return metrics | dict.fromkeys(names, Untestable(str(error)))
    for index, name in enumerate(("aaren", "softmax")):
        model = learnt(pixels, 10, length, name, seed, numbers, part(progress, f"digits, {name}", 2 + index, 4))
        losses.append(validation_loss(model, pixels))
        shares.append(evaluate(model, pixels))
    return metrics | dict(zip(names, (losses[0] / losses[1], losses[1], *shares), strict=True))


def learnt(
    task: Task, classes: int, length: int, name: str, seed: int, numbers: Numbers, progress: Progress
) -> Sequence:
    """Return a trained model with one mechanism."""
    torch.manual_seed(seed)
    model = Sequence(BRIGHTNESS if classes != LEVELS else LEVELS, classes, length, numbers, name)
    train(model, task, seed, numbers, progress)
    return model.eval()


@torch.no_grad()
def scan_error(seed: int, length: int) -> float:
    """Return the largest error of the forms in float32 against softmax with a repeated query in float64."""
    torch.manual_seed(seed)
    query, key, value = torch.randn(3, 1, 2, length, 32).unbind()
    mechanism = create_attention("aaren", head_dim=32, num_heads=2)
    repeated = mechanism.query.double()[None, :, :, 0, None].transpose(2, 3).expand(-1, -1, length, -1)
    expected = F.scaled_dot_product_attention(repeated, key.double(), value.double(), is_causal=True)
    errors = []
    for form in FORMS:
        mechanism.form = form
        errors.append(float((mechanism(query, key, value, is_causal=True) - expected).abs().max()))
    return max(errors)


@torch.no_grad()
def growth() -> Metrics:
    """Return the bytes of the states after 4096 tokens over those after 16."""
    ratios = []
    for name in ("aaren", "softmax"):
        mechanism = create_attention(name, head_dim=32, num_heads=2)
        sizes = []
        for length in (16, 4096):
            tokens = torch.zeros(1, 2, length, 32)
            _, state = mechanism.prefill(tokens, tokens, tokens)
            sizes.append(state.nbytes)
        ratios.append(sizes[1] / sizes[0])
    return {"state_growth": ratios[0], "cache_growth": ratios[1]}
