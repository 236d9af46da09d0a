"""Modular addition learnt with softmax, StableMax, orthogonal gradients and weight decay (Prieto et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.collapse import descent_cosine, softmax_collapse
from manymax.claims.experiments.orthograd import OrthoGrad
from manymax.data.modular import Modular
from manymax.maps.stablemax import log_stablemax

GENERALISED = 0.95  # test accuracy at which steps are counted


class Adder(nn.Module):
    """Two one-hot numbers to one score a sum, by a ReLU network without biases."""

    offset: Tensor

    def __init__(self, modulus: int, hidden: int) -> None:
        super().__init__()
        # A linear map of two one-hot vectors is the sum of two of its columns; its start is that of nn.Linear.
        self.first = nn.EmbeddingBag(2 * modulus, hidden, mode="sum")
        nn.init.uniform_(self.first.weight, -((2 * modulus) ** -0.5), (2 * modulus) ** -0.5)
        self.second = nn.Linear(hidden, hidden, bias=False)
        self.third = nn.Linear(hidden, modulus, bias=False)
        self.register_buffer("offset", torch.tensor([0, modulus]), persistent=False)

    def forward(self, pairs: Tensor) -> Tensor:
        """Return scores (n, modulus) for pairs (n, 2)."""
        hidden = F.relu(self.first(pairs + self.offset))
        return self.third(F.relu(self.second(hidden)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    epochs: int
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    beta2: float = 0.99
    weight_decay: float = 0.0
    orthogonal: bool = False


@dataclass
class Course:
    """What was seen at the checkpoints of a training."""

    epochs: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    collapse: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)

    def epochs_to(self, accuracy: float) -> float:
        """Return the first checkpoint with that test accuracy, or infinity."""
        return next(
            (float(epoch) for epoch, test in zip(self.epochs, self.test, strict=True) if test >= accuracy), math.inf
        )


def stablemax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of -log StableMax at the targets, in float64 as in the authors' code."""
    return F.nll_loss(log_stablemax(logits.double()), targets)


def grok(arm: Arm, seed: int, numbers: Numbers, progress: Progress) -> Course:
    """Train on part of the addition table and watch the rest."""
    task = Modular(numbers["modulus"], numbers["train_share"])
    (pairs, targets), (test_pairs, test_targets) = (
        (inputs[:, :2], sums[:, -1]) for inputs, sums in (task.examples("train"), task.examples("validation"))
    )
    torch.manual_seed(seed)
    model = Adder(task.modulus, numbers["hidden"])
    adam = torch.optim.AdamW(
        model.parameters(),
        lr=numbers["learning_rate"],
        betas=(0.9, arm.beta2),
        eps=1e-25,
        weight_decay=arm.weight_decay,
    )
    optimizer = OrthoGrad(adam) if arm.orthogonal else adam
    course = Course()
    every = max(1, arm.epochs // numbers["checkpoints"])
    for epoch in range(arm.epochs + 1):
        order = torch.randperm(len(pairs))  # sums round differently in another order, which the paper relies on
        logits = model(pairs[order])
        optimizer.zero_grad()
        arm.loss(logits, targets[order]).backward()  # type: ignore[no-untyped-call]
        if epoch % every == 0:
            course.epochs.append(epoch)
            course.train.append(float((logits.argmax(-1) == targets[order]).float().mean()))
            course.collapse.append(softmax_collapse(logits.detach()))
            course.cosine.append(descent_cosine(model.parameters()))
            with torch.no_grad():
                course.test.append(float((model(test_pairs).argmax(-1) == test_targets).float().mean()))
            progress(epoch / arm.epochs, f"step {epoch}, test accuracy {course.test[-1]:.2f}")
        optimizer.step()
    return course


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the four arms from the same start."""
    arms = {
        "softmax": Arm(numbers["softmax_epochs"]),
        "stablemax": Arm(numbers["stablemax_epochs"], loss=stablemax_loss, beta2=0.999),
        "orthograd": Arm(numbers["orthograd_epochs"], orthogonal=True),
        "decay": Arm(numbers["decay_epochs"], weight_decay=numbers["weight_decay"]),
    }
    total, before, courses = sum(arm.epochs for arm in arms.values()), 0, {}
    for name, arm in arms.items():

        def tell(share: float, doing: str, name: str = name, arm: Arm = arm, before: int = before) -> None:
            progress((before + share * arm.epochs) / total, f"{name}, {doing}")

        courses[name] = grok(arm, seed, numbers, tell)
        before += arm.epochs
    softmax = courses["softmax"]
    fitted = [cosine for cosine, train in zip(softmax.cosine, softmax.train, strict=True) if train == 1]
    epochs = {name: course.epochs_to(GENERALISED) for name, course in courses.items()}
    # Where weight decay does not get there in time, its steps count as if it just had: the ratio is then too high.
    decay = min(epochs["decay"], float(numbers["decay_epochs"]))
    return {
        "softmax_train_accuracy": softmax.train[-1],
        "softmax_test_accuracy": max(softmax.test),
        "softmax_collapse": median(softmax.collapse[-max(1, len(softmax.collapse) // 4) :]),
        "softmax_collapse_largest": max(softmax.collapse),
        "softmax_cosine": max(fitted, default=math.nan),
        "stablemax_test_accuracy": courses["stablemax"].test[-1],
        "orthograd_test_accuracy": courses["orthograd"].test[-1],
        "orthograd_epochs_ratio": epochs["orthograd"] / decay,
        "stablemax_epochs": epochs["stablemax"],
        "orthograd_epochs": epochs["orthograd"],
        "decay_epochs": epochs["decay"],
    }
