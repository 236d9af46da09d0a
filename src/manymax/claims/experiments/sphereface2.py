"""Verification of identities that were not trained, with one binary problem a class (Wen et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.embeddings import (
    convolutional,
    digits,
    identities,
    learn,
    mislabelled,
    only,
    true_accept_rate,
)
from manymax.claims.experiments.given import Given, perceptron
from manymax.claims.experiments.training import part
from manymax.data.task import Examples
from manymax.heads.registry import create_head
from manymax.heads.sphereface2 import SphereFace2Head

HEADS = ("softmax", "cosface", "arcface", "sphereface2")
SETTINGS = 3
TRAINED_DIGITS = 5


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    metrics: Metrics = {"bias_excess": min(bias_excess(classes) for classes in numbers["bias_classes"])}
    network: Callable[[], nn.Module] = partial(convolutional, numbers["dim"], numbers["channels"])
    try:
        examples = digits()
    except ImportError as error:
        names = ("digits_gain_over_softmax", "digits_gain_over_cosface", "digits_rate", "digits_arcface_rate")
        metrics |= dict.fromkeys(names, Untestable(str(error)))
    else:
        task = open_set(examples, 10, TRAINED_DIGITS)
        rates = contest(network, task, seed, numbers, part(progress, "digits", 0, SETTINGS))
        metrics |= {
            "digits_gain_over_softmax": rates["sphereface2"] - rates["softmax"],
            "digits_gain_over_cosface": rates["sphereface2"] - rates["cosface"],
            "digits_rate": rates["sphereface2"],
            "digits_arcface_rate": rates["arcface"],
        }
    many = identities(**numbers["identities"], seed=seed)
    count = numbers["identities"]["count"]
    task = open_set(many, count, count // 2)
    network = partial(perceptron, many[0].shape[1], numbers["hidden"], numbers["dim"])
    rates = contest(network, task, seed, numbers, part(progress, "identities", 1, SETTINGS))
    inputs, labels = task.train
    wrong = mislabelled(labels, numbers["noise"], count // 2, torch.Generator().manual_seed(seed))
    noisy_task = replace(task, train=(inputs, wrong))
    noisy = contest(network, noisy_task, seed, numbers, part(progress, "wrong labels", 2, SETTINGS))
    return metrics | {
        "identities_gain_over_softmax": rates["sphereface2"] - rates["softmax"],
        "identities_gain_over_cosface": rates["sphereface2"] - rates["cosface"],
        "noisy_gain_over_arcface": noisy["sphereface2"] - noisy["arcface"],
        "identities_rate": rates["sphereface2"],
        "identities_arcface_rate": rates["arcface"],
        "noisy_rate": noisy["sphereface2"],
    }


def open_set(examples: Examples, count: int, trained: int) -> Given:
    """Return a task of the first classes, with the others for validation."""
    return Given(only(examples, range(trained)), only(examples, range(trained, count)))


def contest(
    network: Callable[[], nn.Module], task: Given, seed: int, numbers: Numbers, progress: Progress
) -> dict[str, float]:
    """Return the true accept rate in percent on classes that were not trained, for each head with its defaults."""
    classes = int(task.train[1].max()) + 1
    inputs, labels = task.validation
    rates = {}
    for index, name in enumerate(HEADS):
        head = partial(create_head, name, in_features=numbers["dim"], num_classes=classes)
        model = learn(network, head, task, seed, numbers, part(progress, name, index, len(HEADS)))
        rates[name] = 100 * true_accept_rate(model.embed(inputs), labels, numbers["false_accept_rate"])
    return rates


@torch.no_grad()
def bias_excess(classes: int) -> float:
    """Return by how much the loss at right angles grows at least if b starts 0.5 lower or higher, relative to it."""
    head = SphereFace2Head(4, classes).double()
    x, target = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0])

    def loss(shift: float) -> Tensor:
        head.b.add_(shift)
        found: Tensor = head(x, target)
        head.b.sub_(shift)
        return found

    return float(min(loss(-0.5), loss(0.5)) / loss(0.0) - 1)
