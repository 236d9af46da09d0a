"""A small student of a CNN on digits, with and without standard scores (Sun et al., 2024)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part, trained
from manymax.claims.experiments.views import images
from manymax.data.task import Examples, Split, stream
from manymax.heads.logit_standardization_kd import LogitStandardizationKDHead, kd_loss

TEACHER = (4.0, 3.0, 0.0, -1.0)  # logits of the toy case
NEAR_BUT_WRONG = (3.4, 3.6, 0.0, -1.0)
RIGHT_BUT_LARGER = (8.0, 6.0, 0.0, -2.0)


class Teacher(nn.Module):
    """A CNN of two convolutions and its cross-entropy."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * channels, 10),
        )

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(self.logits(pixels), labels)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits for pixels (n, 8, 8)."""
        found: Tensor = self.network(pixels[:, None])
        return found


class Student(nn.Module):
    """One hidden layer, and a head that listens to a teacher."""

    def __init__(self, teacher: Teacher, hidden: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU())
        self.head = LogitStandardizationKDHead(hidden, 10, bias=True, **options)
        self.teach = teacher.logits  # a method is no submodule: the teacher is not trained again

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Return the loss with the teacher's logits."""
        with torch.no_grad():
            taught = self.teach(pixels)
        loss: Tensor = self.head(self.network(pixels), labels, teacher=taught)
        return loss

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits for pixels (n, 8, 8)."""
        return self.head.logits(self.network(pixels))


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the teacher and four students, then look at the loss itself."""
    train, test = (noised(split, numbers["noise"], seed) for split in ("train", "validation"))
    task = Given(train, test)
    settings = {**numbers, **numbers["teacher"]}
    teacher: Teacher = trained(
        partial(Teacher, numbers["channels"]), task, seed, settings, part(progress, "teacher", 0, 5)
    )
    accuracies, scales = {}, {}
    kinds = [(form, standardize) for form in ("kd", "dkd") for standardize in (False, True)]
    for index, (form, standardize) in enumerate(kinds, 1):
        options = {"form": form, "standardize": standardize, "tau": numbers["tau"]}
        tell = part(progress, form + ", standard" * standardize, index, 5)
        model: Student = trained(partial(Student, teacher, numbers["hidden"], options), task, seed, numbers, tell)
        accuracies[form, standardize] = accuracy(model, test)
        with torch.no_grad():
            ratio = model.logits(test[0]).std(-1) / teacher.logits(test[0]).std(-1)
        scales[form, standardize] = float(ratio.log().mean().abs())
    plain, standard = toy(numbers["tau"])
    return {
        "accuracy_gain": accuracies["kd", True] - accuracies["kd", False],
        "invariance": invariance(seed, numbers["tau"]),
        "scale_freedom": scales["kd", True] - scales["kd", False],
        "toy_inversion": plain,
        "toy_standardized": standard,
        "teacher_accuracy": accuracy(teacher, test),
        "kd_accuracy": accuracies["kd", False],
        "dkd_accuracy_gain": accuracies["dkd", True] - accuracies["dkd", False],
    }


def noised(split: str, noise: float, seed: int) -> Examples:
    """Return digits (n, 8, 8) with noise, the same for all models, and their labels."""
    kind: Split = "train" if split == "train" else "validation"
    pixels, labels = images(kind)
    return pixels + noise * torch.randn(pixels.shape, generator=stream("noise", seed, split)), labels


@torch.no_grad()
def accuracy(model: Teacher | Student, examples: Examples) -> float:
    """Return the share of right classes in points."""
    pixels, labels = examples
    return 100 * float((model.logits(pixels).argmax(-1) == labels).double().mean())


def invariance(seed: int, tau: float) -> float:
    """Return the largest change of the loss when students' logits are scaled and shifted, in float64."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, 256, 10, generator=generator, dtype=torch.float64)
    scale = 0.5 + 4.5 * torch.rand(256, 1, generator=generator, dtype=torch.float64)
    shift = 10 * torch.randn(256, 1, generator=generator, dtype=torch.float64)
    return float((kd_loss(scale * student + shift, teacher, tau=tau) - kd_loss(student, teacher, tau=tau)).abs().max())


def toy(tau: float) -> tuple[float, float]:
    """Return the loss of the right student less that of the wrong one, without and with standard scores."""
    teacher, wrong, right = (torch.tensor(x, dtype=torch.float64) for x in (TEACHER, NEAR_BUT_WRONG, RIGHT_BUT_LARGER))

    def loss(student: Tensor, standardize: bool) -> float:
        return float(kd_loss(student, teacher, tau=tau, standardize=standardize))

    return loss(right, False) - loss(wrong, False), loss(right, True) - loss(wrong, True)
