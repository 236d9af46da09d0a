"""Output layers over the number of classes: time and memory of a training step, weights updated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.bench.contender import CONTROL_SHARE, TOLERANCE, Case, Row
from manymax.bench.rounds import sample, timed
from manymax.compare import candidate
from manymax.compare.memory import peak_memory
from manymax.compare.outcome import of_error
from manymax.compare.rounds import noise_floor, speed_ratio
from manymax.heads.registry import create_head, list_heads
from manymax.heads.spherical_output import SphericalOutput
from manymax.heads.z_loss_spherical import SphericalHead

Step = Callable[[], Tensor]
RATE = 0.01  # of the updates; what it is changes no time
BASELINE = "softmax"
CHECKED = {BASELINE, "z-loss-spherical"}  # heads whose first loss is compared with a formula's, from the same weight
KINDS = ("adaptive", "hierarchical", "sampled")  # in the names of heads that exist for many classes


@dataclass(frozen=True)
class HeadProblem:
    """Features and targets of a batch.

    Attributes:
        classes: C.
        tokens: N.
        features: d.
        device: where they are.
    """

    classes: int
    tokens: int
    features: int
    device: str = "cpu"

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return normal features with a gradient, and classes as frequent as one over their number, as words are."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.tokens, self.features, generator=generator)
        share = torch.rand(self.tokens, generator=generator, dtype=torch.float64)
        target = (float(self.classes) ** share).long().clamp_max(self.classes) - 1
        return x.to(self.device).requires_grad_(), target.to(self.device)

    @cached_property
    def weight(self) -> Tensor:
        """Return the rows (C, d) that all layers begin with; each copies them."""
        generator = torch.Generator().manual_seed(1)
        weight = torch.empty(self.classes, self.features).normal_(std=self.features**-0.5, generator=generator)
        return weight.to(self.device)


@dataclass(frozen=True)
class Trainer:
    """An output layer to train.

    Attributes:
        name: what the table calls its maker.
        head: label of the head, as "z-loss-spherical:loss=mse".
        make: returns the step for a problem: loss, backward pass and update; the step returns the loss.
        exact: the loss of scores and targets, if the first step's can be checked.
        backend: how it is computed, where there is more than one way.
    """

    name: str
    head: str
    make: Callable[[HeadProblem], Step]
    exact: Callable[[Tensor, Tensor], Tensor] | None = None
    backend: str = ""


@dataclass
class HeadRow(Row):
    """A trainer's results.

    Attributes:
        peak_bytes: memory that a step takes at its peak beyond what the layer holds between steps.
    """

    peak_bytes: int | None = None


def _descend(parameters: Sequence[Tensor]) -> None:
    """Take a step of SGD and drop the gradients."""
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-RATE)
                parameter.grad = None


def _module_step(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], problem: HeadProblem) -> Step:
    x, target = problem.batch()
    parameters = [x, *module.parameters()]

    def step() -> Tensor:
        found = loss(x, target)
        found.backward()  # type: ignore[no-untyped-call]
        _descend(parameters[1:])
        x.grad = None
        return found.detach()

    return step


def _full_logits(problem: HeadProblem) -> Step:
    """Return torch's cross-entropy of all scores."""
    layer = nn.Linear(problem.features, 1, bias=False, device=problem.device)
    layer.weight = nn.Parameter(problem.weight.clone())
    return _module_step(layer, lambda x, target: F.cross_entropy(layer(x), target), problem)


def _torch_adaptive(problem: HeadProblem) -> Step:
    """Return torch's adaptive softmax, whose first of three clusters is a hundredth of the classes."""
    cutoffs = sorted({max(1, problem.classes // 100), max(2, problem.classes // 10)})
    module = nn.AdaptiveLogSoftmaxWithLoss(problem.features, problem.classes, cutoffs, device=problem.device)
    return _module_step(module, lambda x, target: module(x, target).loss, problem)


def _head(label: str, problem: HeadProblem) -> Step:
    """Return a head of the registry."""
    chosen = candidate.parse(label, "heads")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        head = create_head(
            chosen.system, in_features=problem.features, num_classes=problem.classes, **dict(chosen.options)
        )
    head = head.to(problem.device)
    if chosen.system in CHECKED:
        with torch.no_grad():
            head.weight.copy_(problem.weight)
    return _module_step(head, head, problem)


def _layer(options: dict[str, Any], problem: HeadProblem) -> Step:
    """Return the layer with the exact update."""
    x, target = problem.batch()
    layer = SphericalOutput(problem.features, problem.classes, **options).to(problem.device)
    layer.weight = problem.weight

    def step() -> Tensor:
        loss: Tensor = layer(x, target)
        loss.backward()  # type: ignore[no-untyped-call]
        layer.step(RATE)
        x.grad = None
        return loss.detach()

    return step


def default_heads() -> list[str]:
    """Return softmax, the heads for many classes, and the Z-loss."""
    return [BASELINE, *(name for name in list_heads() if any(kind in name for kind in KINDS)), "z-loss-spherical"]


def trainers(labels: Sequence[str]) -> list[Trainer]:
    """Return torch's cross-entropy of all scores, which is the baseline, torch's adaptive softmax, and the heads.

    Args:
        labels: names of heads, with options as "z-loss-spherical:loss=mse".

    Raises:
        TypeError: if a head has no such option.
        ValueError: if there is no such head, or an option is out of range.
    """
    found = [
        Trainer("torch", BASELINE, _full_logits, _cross_entropy),
        Trainer("torch", "adaptive softmax", _torch_adaptive),
    ]
    for label in dict.fromkeys(labels):
        chosen = candidate.parse(label, "heads")
        head = create_head(chosen.system, in_features=1, num_classes=8, **dict(chosen.options))
        options = dict(chosen.options)
        if isinstance(head, SphericalHead):
            found.append(Trainer("manymax", label, partial(_head, label), head.loss, "all scores"))
            if set(options) <= {"loss", "a", "b", "eps", "ignore_index"}:
                found.append(Trainer("manymax", label, partial(_layer, options), head.loss, "SphericalOutput"))
        else:
            exact = _cross_entropy if label == BASELINE else None
            found.append(Trainer("manymax", label, partial(_head, label), exact))
    return found


def _cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(scores, target, reduction="none")


def _error(trainer: Trainer, loss: Tensor, problem: HeadProblem) -> float:
    """Return how far, relative, the first step's loss is from the formula over a few tokens' scores at a time."""
    if trainer.exact is None:
        return 0.0 if bool(torch.isfinite(loss)) else float("inf")
    (x, target), weight = problem.batch(), problem.weight
    few = max(1, 2**24 // problem.classes)
    parts = zip(torch.split(x.detach(), few), torch.split(target, few), strict=True)
    exact = torch.cat([trainer.exact((part @ weight.T).double(), own) for part, own in parts]).mean()
    return float((loss - exact).abs() / exact.abs())


def _prepared(trainer: Trainer, problem: HeadProblem) -> tuple[HeadRow, Step | None]:
    """Make a layer, check its first step and measure the memory of its second."""
    row = HeadRow(trainer.name, trainer.head, trainer.backend)
    try:
        step = trainer.make(problem)
        error = _error(trainer, step(), problem)
        with peak_memory(problem.device) as peak:
            step()
    except Exception as raised:  # noqa: BLE001  (whatever a layer does, the others are timed)
        row.status, row.message = of_error(raised)
        return row, None
    row.peak_bytes = peak.bytes
    if not error <= TOLERANCE[torch.float32]:
        row.status, row.message = "differs", f"loss {error:.1e} from the formula, relative; not timed"
        return row, None
    return row, step


def run_heads(problem: HeadProblem, entrants: Sequence[Trainer], seconds: float) -> Case:
    """Check and time layers on one problem.

    Args:
        problem: the batch and the number of classes.
        entrants: the first one is the baseline; if it fails, the others have times and no ratios.
        seconds: for all rounds together.
    """
    prepared = [_prepared(entrant, problem) for entrant in entrants]
    sound = [(row, sample(step, problem.device)) for row, step in prepared if step is not None]
    if not sound:
        return Case([row for row, _ in prepared], None, 0)
    measured = timed([one for _, one in sound], (1 - CONTROL_SHARE) * seconds, problem.device)
    rows = [row for row, _ in prepared]
    floor = None
    if rows[0].status == "ok":
        floor = noise_floor(*timed([sound[0][1]] * 2, CONTROL_SHARE * seconds, problem.device))
    for (row, _), own in zip(sound, measured, strict=True):
        row.seconds = median(own)
        row.speed = None if floor is None else speed_ratio(measured[0], own)
    return Case(list(rows), floor, len(measured[0]))


def lines(cases: Sequence[tuple[int, Case]], key: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each layer's name and its (classes, value) pairs, as far as measured.

    Args:
        cases: numbers of classes, each with its rows; the same layers in all of them.
        key: "seconds" or "peak_bytes".
    """
    for index, first in enumerate(cases[0][1].rows):
        values = [(classes, getattr(case.rows[index], key)) for classes, case in cases]
        by = f"{first.map} ({first.backend or first.name})"
        yield by, [(classes, value) for classes, value in values if value is not None]
