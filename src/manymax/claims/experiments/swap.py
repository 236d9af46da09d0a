"""A GPT with one mechanism of attention or another, under the same start and the same batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from manymax.claims.claim import Numbers, Progress
from manymax.claims.experiments.training import trained
from manymax.data.task import Task
from manymax.models.gpt import GPT


def learn(
    task: Task, attention: str | Callable[..., nn.Module], seed: int, numbers: Numbers, progress: Progress
) -> GPT:
    """Return a GPT that was trained on a task, in evaluation mode.

    Args:
        task: gives the batches and the model's vocabulary and classes.
        attention: a mechanism's name, or a function of (head_dim, num_heads) that makes one for each layer in turn.
        seed: of the start and the batches.
        numbers: "depth", "width", "heads", and those of `train`.
        progress: told about the loss.
    """
    sizes = {"depth": numbers["depth"], "width": numbers["width"], "num_heads": numbers["heads"]}
    make = partial(GPT, **{**task.model_options, **sizes, "attention": attention})
    model: GPT = trained(make, task, seed, numbers, progress)
    return model
