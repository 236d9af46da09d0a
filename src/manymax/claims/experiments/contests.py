"""Mechanisms that learn one task from one start, and what their weights are like."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manymax.claims.claim import Numbers, Progress, Untestable
from manymax.claims.experiments.training import part, trained, validation_loss
from manymax.data.digits import Digits
from manymax.data.task import Task
from manymax.models.evaluate import evaluate
from manymax.models.gpt import GPT
from manymax.models.parts import sublayers
from manymax.models.vit import ViT


class Learnt(NamedTuple):
    """A model that was trained, with its validation loss in nats and its quality in the task's measure."""

    model: Any
    loss: float
    quality: float


def learn(make: Callable[[], Any], task: Task, seed: int, numbers: Numbers, progress: Progress) -> Learnt:
    """Train a model that is made under the seed; numbers are those of `train`."""
    model = trained(make, task, seed, numbers, progress)
    return Learnt(model, validation_loss(model, task), evaluate(model, task))


def contest(
    contenders: Mapping[str, Any],
    task: Task,
    make: Callable[[Any], Any],
    seed: int,
    numbers: Numbers,
    progress: Progress,
) -> dict[str, Learnt]:
    """Train one model for each contender, a name or a factory of attention, from the same start on the same batches."""
    found = {}
    for index, (name, attention) in enumerate(contenders.items()):
        tell = part(progress, name, index, len(contenders))
        found[name] = learn(partial(make, attention), task, seed, numbers, tell)
    return found


def on_text(
    contenders: Mapping[str, Any], task: Task, seed: int, numbers: Numbers, progress: Progress
) -> dict[str, Learnt]:
    """Train small causal language models; numbers have "depth" and "width" besides those of `train`."""

    def make(attention: Any) -> GPT:
        return GPT(**task.model_options, depth=numbers["depth"], width=numbers["width"], attention=attention)

    return contest(contenders, task, make, seed, numbers, progress)


def on_digits(
    contenders: Mapping[str, Any], seed: int, numbers: Numbers, progress: Progress
) -> dict[str, Learnt] | Untestable:
    """Train small vision transformers on digits of 64 patches of one pixel, if scikit-learn is there to give them."""
    task = Digits()
    try:
        options = {**task.model_options, "patch": 1}
    except ImportError as error:
        return Untestable(str(error))

    def make(attention: Any) -> ViT:
        return ViT(**options, depth=numbers["depth"], width=numbers["width"], attention=attention)

    return contest(contenders, task, make, seed, numbers, progress)


def gap_ratio(runs: Mapping[str, Learnt], ours: str, theirs: str, best: str = "softmax") -> float:
    """Return how much of the gap in loss between one mechanism and the best another leaves."""
    gap = runs[theirs].loss - runs[best].loss
    return (runs[ours].loss - runs[best].loss) / gap if gap else math.inf


@torch.no_grad()
def seen(model: Any, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return queries and keys, with one head for each query head, that each attention of a model got, first to last."""
    calls: list[tuple[Tensor, Tensor]] = []

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        del module
        calls.append((arguments[0], arguments[1]))

    handles = [each.mechanism.register_forward_pre_hook(record) for each in sublayers(model)]
    try:
        model.features(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@torch.no_grad()
def rows(attend: Callable[..., Tensor], query: Tensor, key: Tensor) -> Tensor:
    """Return the weights (B, H, Nq, Nk) of a mechanism that is linear in its values, as its output for unit vectors."""
    tokens = key.shape[2]
    eye = torch.eye(tokens, dtype=key.dtype).expand(*key.shape[:2], tokens, tokens)
    return attend(query, key, eye)


def row_entropy(weights: Tensor) -> float:
    """Return the mean entropy in nats of rows of weights of at least 0, each divided by its sum, if it has one."""
    sums = weights.sum(-1, keepdim=True)
    shares = (weights / sums)[sums[..., 0] > 0]
    return float(torch.special.entr(shares.double().clamp(min=0)).sum(-1).mean())


def ranks_agree(x: Tensor, y: Tensor) -> float:
    """Return Spearman's correlation of two vectors without ties."""
    a, b = (values.double().argsort().argsort().double() for values in (x.flatten(), y.flatten()))
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


class GradientNorms:
    """Records the norm of all gradients of a model in each step, as they come, before anything is cut."""

    def __init__(self, model: nn.Module) -> None:
        self.squares: list[float] = []
        model.register_forward_pre_hook(lambda *_: self.squares.append(0.0))
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self._add)  # type: ignore[no-untyped-call]

    def _add(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.squares[-1] += float(parameter.grad.square().sum())

    def spikes(self, factor: float, window: int) -> int:
        """Return in how many steps the norm is not finite or above `factor` times the median of `window` before it."""
        norms = torch.tensor(self.squares, dtype=torch.float64).sqrt()
        count = 0
        for step in range(1, len(norms)):
            usual = norms[max(0, step - window) : step].nanmedian()
            count += not bool(norms[step] <= factor * usual)
        return count
