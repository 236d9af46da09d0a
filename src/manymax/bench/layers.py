"""Output layers to train side by side: torch's own, the registry's heads, and the layer with the exact update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.compare import candidate
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
