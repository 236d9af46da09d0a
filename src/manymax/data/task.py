"""What a task is: batches that depend on (split, seed, step) alone, a fixed validation set, one measure of quality."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

Split = Literal["train", "validation"]
Examples = tuple[Tensor, Tensor]
IGNORED = -100  # a target that takes no part, as in torch


@dataclass(frozen=True)
class Metric:
    """How the quality of a model on a task is called and read."""

    name: str
    better: Literal["lower", "higher"]
    unit: str


BITS_PER_BYTE = Metric("bits per byte", "lower", "bits")
BITS_PER_WORD = Metric("bits per word", "lower", "bits")
ACCURACY = Metric("accuracy", "higher", "share")


@dataclass(frozen=True)
class Recipe:
    """A training run that shows something within seconds on two cores; AdamW, betas 0.9 and 0.95, gradients cut at 1.

    Attributes:
        batch_size: examples a step.
        steps: updates; after the warmup the learning rate falls to zero.
        learning_rate: the highest learning rate.
        warmup: steps over which the learning rate rises to it.
        weight_decay: on matrices alone.
        model: sizes for the model.
    """

    batch_size: int
    steps: int
    learning_rate: float
    warmup: int
    weight_decay: float = 0.0
    model: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A task with its options chosen. Subclasses are frozen dataclasses: a field is an option.

    Inputs are int64 tokens (batch, length) or float32 images (batch, channels, height, width); targets are int64
    classes, (batch, length) with -100 where nothing is asked, or (batch,).

    Attributes:
        name: the task's name in `list_tasks()`.
        kind: "language" if every target is a token of the vocabulary, else "classification".
        family: which model reads it, "gpt" or "vit".
        metric: the measure of quality on the validation set.
        recipe: settings for a short training run.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["language", "classification"]]
    family: ClassVar[Literal["gpt", "vit"]]
    metric: ClassVar[Metric]
    recipe: ClassVar[Recipe]

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Return how many classes a target may be."""

    @property
    @abstractmethod
    def model_options(self) -> dict[str, Any]:
        """Return what the model must know of the task: vocabulary or image, and classes."""

    @abstractmethod
    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return `count` examples of a split chosen by the generator."""

    @abstractmethod
    def held_out(self) -> Examples:
        """Return the whole validation set, the same whatever the seed."""

    def batch(self, split: Split, index: int, batch_size: int, *, seed: int = 0) -> Examples:
        """Return the batch of a training step: a function of the arguments alone, so that all candidates see the same.

        Args:
            split: "train" or "validation".
            index: the step.
            batch_size: examples.
            seed: another seed gives other batches.
        """
        if split not in {"train", "validation"}:
            raise ValueError(f"split: expected 'train' or 'validation', got {split!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        return self.draw(split, batch_size, stream(self.name, split, seed, index))

    def evaluation(self, batch_size: int) -> Iterator[Examples]:
        """Yield the whole validation set in order, `batch_size` examples at a time; the last batch may be smaller."""
        inputs, targets = self.held_out()
        return zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)

    def _at_least(self, **least: int) -> None:
        """Refuse options below their least value."""
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: expected at least {bound}, got {getattr(self, name)}")

    @classmethod
    def options(cls) -> list[str]:
        """Return the names of the task's options."""
        return [option.name for option in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses


class FiniteTask(Task):
    """A task whose examples are all at hand."""

    @abstractmethod
    def examples(self, split: Split) -> Examples:
        """Return every example of a split."""

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Examples:
        """Return `count` different examples of a split."""
        inputs, targets = self.examples(split)
        if count > len(inputs):
            raise ValueError(f"batch_size: expected at most the {len(inputs)} examples of {split}, got {count}")
        chosen = torch.randperm(len(inputs), generator=generator)[:count]
        return inputs[chosen], targets[chosen]

    def held_out(self) -> Examples:
        """Return the validation examples."""
        return self.examples("validation")


def stream(*parts: object) -> torch.Generator:
    """Return a generator seeded by all parts together, so that no two steps, seeds or splits share numbers."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def share(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone, the same on every machine: it decides splits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
