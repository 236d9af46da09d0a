"""Training that several experiments share: a task, a model, AdamW, a learning rate that rises and falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from manymax.claims.claim import Numbers, Progress
from manymax.data.task import IGNORED, Task


def train(model: nn.Module, task: Task, seed: int, numbers: Numbers, progress: Progress) -> None:
    """Train on batches that depend on the seed and the step alone; gradients are cut at norm 1.

    Args:
        model: takes (inputs, targets) and returns the mean loss.
        task: gives the batches.
        seed: of the batches.
        numbers: "steps", "batch_size", "learning_rate", the highest, and "warmup", the steps until it is reached; from
            there it falls linearly to zero.
        progress: told about the loss.
    """
    steps, warmup = numbers["steps"], numbers["warmup"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=numbers["learning_rate"], betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup))
    )
    for step in range(steps):
        loss = model(*task.batch("train", step, numbers["batch_size"], seed=seed))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            progress(step / steps, f"step {step}, loss {float(loss.detach()):.2f}")


def trained(make: Callable[[], Any], task: Task, seed: int, numbers: Numbers, progress: Progress) -> Any:
    """Return a model that is made under the seed and trained on a task, in evaluation mode; numbers as in `train`."""
    torch.manual_seed(seed)
    model = make()
    train(model, task, seed, numbers, progress)
    return model.eval()


@torch.no_grad()
def validation_loss(model: Any, task: Task, batch_size: int = 64) -> float:
    """Return the mean loss in nats over the whole validation set; infinite if it is NaN, as a diverged model's is."""
    total, count = 0.0, 0
    for inputs, targets in task.evaluation(batch_size):
        asked = int((targets != IGNORED).sum())
        total += float(model(inputs, targets)) * asked
        count += asked
    mean = total / count
    return mean if mean == mean else float("inf")  # noqa: PLR0124 - NaN alone differs from itself


def part(progress: Progress, name: str, index: int, count: int) -> Progress:
    """Return the progress of one of `count` equal parts of a run."""

    def tell(share: float, doing: str) -> None:
        progress((index + share) / count, f"{name}, {doing}")

    return tell
