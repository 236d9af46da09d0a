"""The quality of a model on a task's validation set, in the task's own measure, and how good its probabilities are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from manymax.data.task import IGNORED, Examples, Task

TOP = 5
BINS = 15  # of the calibration error: those of Guo et al., whose numbers others compare with


@torch.no_grad()
def evaluate(model: Any, task: Task, batch_size: int = 64) -> float:
    """Return bits per target, or the share of targets that get the highest score, over the whole validation set.

    The bits are those of the probabilities that the head gives the targets, whatever loss it is trained by.

    Args:
        model: a model with `.logits(inputs)`, and for bits `.features(inputs)` and a `.head`.
        task: the task.
        batch_size: examples at a time; it does not change the result.
    """
    total, count = 0.0, 0
    for inputs, targets in _batches(model, task, batch_size):
        asked = targets != IGNORED
        if task.metric.unit == "bits":
            total += float(model.head.nll(model.features(inputs), targets).double().sum()) / math.log(2)
        else:
            total += int((model.logits(inputs).argmax(-1) == targets)[asked].sum())
        count += int(asked.sum())
    return total / count


@torch.no_grad()
def predictions(model: Any, task: Task, batch_size: int = 64) -> dict[str, float]:
    """Return how often a model is right, and whether as often as its probabilities say, over the validation set.

    Args:
        model: a model with `.features(inputs)` and a `.head`.
        task: the task.
        batch_size: examples at a time; it does not change the result.

    Returns:
        "accuracy", the share of targets with the highest score; "top5_accuracy", with one of the five highest; and
        "calibration_error", the mean over predictions of how far the accuracy of the predictions that are about as
        confident is from their mean confidence, with confidences in 15 bins of the same width.

    Source:
        Guo et al., 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    first, among, confidence = [], [], []
    for inputs, targets in _batches(model, task, batch_size):
        asked = targets != IGNORED
        logits, wanted = model.head.logits(model.features(inputs)[asked]).float(), targets[asked][:, None]
        best = logits.topk(min(TOP, logits.shape[-1])).indices
        first.append((best[:, :1] == wanted)[:, 0])
        among.append((best == wanted).any(-1))
        confidence.append(model.head.log_weights(logits).gather(-1, best[:, :1])[:, 0].exp())
    right, sure = torch.cat(first).double(), torch.cat(confidence).double()
    return {
        "accuracy": float(right.mean()),
        "top5_accuracy": float(torch.cat(among).double().mean()),
        "calibration_error": _calibration_error(sure, right),
    }


def _calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error of predictions, (n,) each; a bin includes its upper end."""
    bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    excess = torch.zeros(BINS, dtype=confidence.dtype, device=confidence.device).index_add_(0, bins, confidence - right)
    return float(excess.abs().sum() / len(right))


def _batches(model: Any, task: Task, batch_size: int) -> Iterator[Examples]:
    """Yield the validation set where the model is, which is in evaluation mode meanwhile."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    for inputs, targets in task.evaluation(batch_size):
        yield inputs.to(device), targets.to(device)
    model.train(was_training)
