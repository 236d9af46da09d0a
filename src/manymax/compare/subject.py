"""What a job works on: the plan's task, and the model with a candidate in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.compare import candidate, plan_file
from manymax.compare.backends import observe
from manymax.compare.plan import Plan
from manymax.data.registry import create_task
from manymax.data.task import Examples, Metric, Task
from manymax.heads.registry import create_head
from manymax.models.evaluate import evaluate, predictions
from manymax.models.probe import probe, statistics
from manymax.models.registry import create_model

EVALUATED = 65536  # targets at most: the whole validation set of every task but a user's own long text
BASELINE = "softmax"  # what the other site holds


@dataclass(frozen=True)
class Excerpt:
    """Rows of a task's validation set, evenly spread: what `evaluate` reads in place of the task."""

    task: Task
    inputs: Tensor
    targets: Tensor

    @classmethod
    def of(cls, task: Task, dtype: torch.dtype, targets: int = EVALUATED) -> Excerpt:
        """Return as many rows as hold so many targets, or all; images in the dtype of the model."""
        inputs, wanted = task.held_out()
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
        rows = max(1, targets // max(1, wanted[0].numel()))
        chosen = slice(None) if rows >= len(inputs) else torch.linspace(0, len(inputs) - 1, rows).long()
        return cls(task, inputs[chosen], wanted[chosen])

    def evaluation(self, batch_size: int) -> Iterator[Examples]:
        """Yield the rows in batches, as a task does."""
        return zip(torch.split(self.inputs, batch_size), torch.split(self.targets, batch_size), strict=True)

    @property
    def metric(self) -> Metric:
        """Return the task's measure of quality."""
        return self.task.metric


class Subject:
    """A plan made real, as far as it needs torch.

    Attributes:
        plan: the plan.
        task: its task.
        excerpt: the validation set that quality is measured on.
        batch_size: examples in a step.
        learning_rate: the highest.
    """

    def __init__(self, plan: Plan) -> None:
        if plan.source is not None:
            plan_file.execute(Path(plan.source))
        self.plan = plan
        chosen = candidate.parse(plan.task, "task")
        options = dict(chosen.options) | ({"path": plan.text} if plan.text is not None else {})
        try:
            self.task = create_task(chosen.system, **options)
        except (ValueError, FileNotFoundError) as error:
            key = "text" if plan.text is not None and str(error).startswith("path: ") else "task"
            raise type(error)(f"{key}: {str(error).removeprefix('name: ').removeprefix('path: ')}") from error
        self.batch_size = plan.batch_size or self.task.recipe.batch_size
        self.learning_rate = plan.learning_rate or self.task.recipe.learning_rate
        self.dtype: torch.dtype = getattr(torch, plan.dtype)
        # Under autocast weights and images stay float32.
        self.stored = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.excerpt = Excerpt.of(self.task, self.stored)

    def model(self, label: str, seed: int) -> Any:
        """Return the model with a candidate, with the initial weights that all candidates share under the seed."""
        model = self.draw(label, seed)
        if self.plan.site == "attention" and self.task.kind == "language":
            refuse_foresight(model.blocks[0].attention.mechanism, model.size.num_heads, model.size.head_dim)
        if label != self.plan.baseline:
            share_weights(self.draw(self.plan.baseline, seed), model)
        return model.to(self.plan.device, self.stored)

    def draw(self, label: str, seed: int) -> Any:
        """Return the model as a candidate's own random numbers make it."""
        chosen = self.plan.candidate(label)
        options = dict(chosen.options)
        if self.plan.site == "attention":
            parts: dict[str, Any] = {"attention": partial(create_attention, chosen.system, **options)}
        else:
            parts = {"attention": BASELINE, "head": partial(create_head, chosen.system, **options)}
        torch.manual_seed(seed)
        return create_model(self.task, **self.plan.model, **parts)

    def batch(self, index: int, seed: int) -> Examples:
        """Return the training batch of a step: the same for all candidates."""
        inputs, targets = self.task.batch("train", index, self.batch_size, seed=seed)
        inputs = inputs.to(self.stored) if inputs.is_floating_point() else inputs
        return inputs.to(self.plan.device), targets.to(self.plan.device)

    def evaluate(self, model: Any, excerpt: Excerpt) -> float:
        """Return the model's quality; batches as in training, so that training sets the memory's peak."""
        with self.precision():
            return evaluate(model, cast(Task, excerpt), self.batch_size)

    def predictions(self, model: Any) -> dict[str, float]:
        """Return how good the predictions and their probabilities are, where heads are compared; else nothing."""
        if self.plan.site != "output":
            return {}
        with self.precision():
            return predictions(model, cast(Task, self.excerpt), self.batch_size)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which models run: autocast for dtypes shorter than the weights'."""
        if self.dtype == torch.bfloat16:
            return torch.autocast(torch.device(self.plan.device).type, dtype=self.dtype)
        return contextlib.nullcontext()

    def probe(self, model: Any) -> dict[str, float | None]:
        """Return what attention does inside a model on a batch of the validation set."""
        inputs, _ = next(self.excerpt.evaluation(self.batch_size))
        with self.precision():
            return statistics(probe(model, inputs.to(self.plan.device)))

    def backend(self, model: Any) -> str:
        """Return which backends of dense attention serve a training step, "" if the mechanism uses none."""
        with observe() as served, self.precision():
            model(*self.batch(0, 0))
        return str(served)

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """Return what the report says about task and model."""
        metric = self.task.metric
        return {
            "quality": {"name": metric.name, "better": metric.better, "unit": metric.unit},
            "model": {"family": self.plan.model.get("family", self.task.family), **sizes(model)},
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
        }


def sizes(model: Any) -> dict[str, Any]:
    """Return a model's sizes by name; of one in stages those of each stage."""
    stages = [vars(size) for size in getattr(model, "sizes", [model.size])]
    return stages[0] if len(stages) == 1 else {name: [size[name] for size in stages] for name in stages[0]}


def share_weights(baseline: nn.Module, model: nn.Module) -> None:
    """Copy to a model every parameter of the baseline's that it has under the same name and shape.

    The models draw them in the same order under the same seed, so that this changes nothing, unless a head with more
    parameters has moved the random numbers of what comes after it. A mechanism's own parameters are its own.
    """
    theirs = dict(baseline.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            other = theirs.get(name)
            if other is not None and other.shape == parameter.shape and ".mechanism." not in name:
                parameter.copy_(other)


@torch.no_grad()
def refuse_foresight(mechanism: nn.Module, num_heads: int, head_dim: int) -> None:
    """Refuse a mechanism whose outputs change with a later token although it was told to be causal.

    Maps that balance whole matrices do. In a language model they would read off the answer, and win.
    """
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(3, 1, num_heads, 8, head_dim, generator=generator)
    other = one.clone()
    other[..., -1, :] = torch.randn(3, 1, num_heads, head_dim, generator=generator)
    was_training = mechanism.training
    mechanism.eval()
    before, after = (mechanism(*tensors.unbind(), is_causal=True)[..., :-1, :] for tensors in (one, other))
    mechanism.train(was_training)
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise ValueError("not causal: its outputs depend on later tokens, so that it would see what it has to predict")
