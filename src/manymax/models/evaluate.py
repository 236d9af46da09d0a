"""The quality of a model on a task's validation set, in the task's own measure."""

from __future__ import annotations

import math
from typing import Any

import torch

from manymax.data.task import BITS_PER_BYTE, IGNORED, Task


@torch.no_grad()
def evaluate(model: Any, task: Task, batch_size: int = 64) -> float:
    """Return bits per byte, or the share of targets that get the highest score, over the whole validation set.

    Args:
        model: a model with `model(inputs, targets)`, the mean loss in nats, and `.logits(inputs)`.
        task: the task.
        batch_size: examples at a time; it does not change the result.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for inputs, targets in task.evaluation(batch_size):
        inputs, targets = inputs.to(device), targets.to(device)  # noqa: PLW2901  # the same batch, elsewhere
        asked = targets != IGNORED
        if task.metric == BITS_PER_BYTE:
            total += float(model(inputs, targets)) / math.log(2) * int(asked.sum())
        else:
            total += int((model.logits(inputs).argmax(-1) == targets)[asked].sum())
        count += int(asked.sum())
    model.train(was_training)
    return total / count
