"""One training: a candidate under a seed, with the same initial weights, batches and steps as every other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn

from manymax.compare.jobs import Order
from manymax.compare.memory import peak_memory
from manymax.compare.subject import Subject

EVALUATIONS = 5  # evenly over the training, the last at its end
POINTS = 60  # of the curves of loss and gradient norm: what a plot can show
CLIP = 1.0  # norm that gradients are cut to
LEAST_NAN_STEPS, NAN_SHARE = 3, 0.1  # more than both of these and the training has diverged
TELL_EVERY = 0.2  # seconds between two reports of progress


class Trainer:
    """A model with its optimiser: AdamW with the learning rate warming up, then falling as a cosine to zero."""

    def __init__(self, subject: Subject, model: Any, steps: int, seed: int) -> None:
        self.subject, self.model, self.steps, self.seed = subject, model, steps, seed
        recipe = subject.task.recipe
        # A share of the steps, since the budget decides how many there are.
        self.warmup = max(1, round(steps * recipe.warmup / recipe.steps))
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=subject.learning_rate, betas=(0.9, 0.95), fused=True)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a share of the highest."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup))) / 2

    def step(self, index: int) -> tuple[float, float]:
        """Do a step; return loss and gradient norm. If either is not finite the weights stay as they are."""
        inputs, targets = self.subject.batch(index, self.seed)
        with self.subject.precision():
            loss: Tensor = self.model(inputs, targets)
        torch.autograd.backward(loss)
        value, norm = loss.item(), nn.utils.clip_grad_norm_(self.model.parameters(), CLIP).item()
        if math.isfinite(norm) and math.isfinite(value):
            for group in self.optimizer.param_groups:
                group["lr"] = self.subject.learning_rate * self.rate(index)
            self.optimizer.step()
        self.optimizer.zero_grad()
        return value, norm


@dataclass
class Record:
    """What a training leaves behind."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    quality: dict[int, float] = field(default_factory=dict)
    nan_steps: int = 0

    def add(self, loss: float, norm: float) -> None:
        """Note a step; one whose loss or gradient is not finite has changed nothing."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.nan_steps += not (math.isfinite(loss) and math.isfinite(norm))

    def curves(self) -> dict[str, dict[str, list[Any]]]:
        """Return loss and gradient norm averaged over stretches of steps, and the qualities."""
        steps, losses = _thin(self.losses)
        _, norms = _thin(self.norms)
        return {
            "train": {"step": steps, "loss": losses},
            "grad_norm": {"step": steps, "value": norms},
            "quality": {"step": list(self.quality), "value": list(self.quality.values())},
        }

    def metrics(self) -> dict[str, Any]:
        """Return the numbers that sum up the steps."""
        norms = [norm for norm in self.norms if math.isfinite(norm)]
        return {
            "steps": len(self.losses),
            "nan_steps": self.nan_steps,
            "grad_norm_median": median(norms) if norms else None,
            "grad_norm_max": max(norms) if norms else None,
        }


def _thin(values: list[float]) -> tuple[list[int], list[float | None]]:
    """Return at most POINTS means of neighbouring values, each at the number of the stretch's last step."""
    width = max(1, math.ceil(len(values) / POINTS))
    stretches = [values[i : i + width] for i in range(0, len(values), width)]
    finite = [[value for value in stretch if math.isfinite(value)] for stretch in stretches]
    ends = [min((i + 1) * width, len(values)) for i in range(len(stretches))]
    return ends, [fmean(stretch) if stretch else None for stretch in finite]


def evaluation_steps(steps: int) -> list[int]:
    """Return after which steps the model is evaluated."""
    return sorted({max(1, round(steps * k / EVALUATIONS)) for k in range(1, EVALUATIONS + 1)})


def train(trainer: Trainer, tell: Callable[[float], None]) -> Record:
    """Do all steps, or fewer if too many of them are NaN."""
    record, subject, steps = Record(), trainer.subject, trainer.steps
    limit = max(LEAST_NAN_STEPS, NAN_SHARE * steps)
    evaluated, told = evaluation_steps(steps), 0.0
    for index in range(steps):
        record.add(*trainer.step(index))
        if record.nan_steps > limit:
            return record
        if index + 1 in evaluated:
            record.quality[index + 1] = subject.evaluate(trainer.model, subject.excerpt)
        if time.monotonic() > told + TELL_EVERY:
            tell((index + 1) / steps)
            told = time.monotonic()
    return record


def warm_up(subject: Subject) -> None:
    """Do a step of the baseline, so that code and buffers which torch loads on first use count for no candidate."""
    trainer = Trainer(subject, subject.model(subject.plan.baseline, 0), 1, 0)
    trainer.step(0)


def perform(order: Order, subject: Subject, tell: Callable[[float], None]) -> dict[str, Any]:
    """Train and return status, message, metrics and curves."""
    assert order.candidate is not None
    assert order.seed is not None
    warm_up(subject)
    with peak_memory(subject.plan.device) as peak:
        model = subject.model(order.candidate, order.seed)
        torch.manual_seed(order.seed)  # for mechanisms that draw random numbers as they go
        trainer = Trainer(subject, model, order.steps, order.seed)
        record = train(trainer, tell)
    quality = record.quality.get(order.steps)
    metrics = {
        "quality": quality,
        **record.metrics(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_memory_bytes": peak.bytes,
        **subject.probe(model),
        **(subject.predictions(model) if quality is not None else {}),
        "backend": subject.backend(model),
    }
    status, message = "ok", ""
    if quality is None:
        status, message = "diverged", f"{record.nan_steps} of the first {len(record.losses)} steps were NaN"
    elif not math.isfinite(quality):
        status, message = "diverged", f"the validation set gives {quality}"
    return {"status": status, "message": message, "metrics": metrics, "curves": record.curves()}
