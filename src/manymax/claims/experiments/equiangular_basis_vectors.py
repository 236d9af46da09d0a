"""Fixed vectors against a linear layer, and how close the vectors come to the Welch bound (Shen et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.embeddings import convolutional, identities, learn
from manymax.claims.experiments.given import Given, perceptron
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.heads.registry import create_head
from manymax.heads.spherical_code import coherence, ebv_generate, welch_bound

NAME = "equiangular-basis-vectors"
DIGITS = ("digits_points", "digits_accuracy")


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    metrics: Metrics = {}
    parts = 1 + len(numbers["dims"])
    digits = Digits()
    try:
        task = Given(digits.examples("train"), digits.examples("validation"))
    except ImportError as error:
        metrics |= dict.fromkeys(DIGITS, Untestable(str(error)))
    else:
        dim = numbers["digits_dim"]
        network = partial(convolutional, dim, numbers["channels"])
        vectors = ebv_generate(10, dim, seed=seed)
        tell = part(progress, "digits", 0, parts)
        ours, theirs, _ = contest(network, vectors, task, seed, numbers["digits"], tell)
        metrics |= {"digits_points": ours - theirs, "digits_accuracy": ours}
    many = many_classes(seed, numbers)
    above, ratios = [], []
    for index, (label, dim, times) in enumerate(zip(("few", "more"), numbers["dims"], numbers["times"], strict=True)):
        count = numbers["identities"]["count"]
        alpha = times * welch_bound(count, dim)
        tell = part(progress, f"{count} classes in {dim} dims", 1 + index, parts)
        tell(0.0, "vectors")
        vectors = ebv_generate(count, dim, alpha=alpha, steps=numbers["generator_steps"], seed=seed)
        above.append(coherence(vectors) / alpha)
        network = partial(perceptron, many.train[0].shape[1], numbers["hidden"], dim)
        ours, theirs, ratio = contest(network, vectors, many, seed, numbers["many"], tell)
        ratios.append(ratio)
        metrics |= {f"{label}_dims_points": ours - theirs, f"{label}_dims_accuracy": ours}
        metrics[f"{label}_dims_welch_ratio"] = coherence(vectors) / welch_bound(count, dim)
    return metrics | {"coherence_over_alpha": max(above), "head_parameters_ratio": max(ratios)}


def many_classes(seed: int, numbers: Numbers) -> Given:
    """Return a task of many identities, with every `held_out`th example for validation."""
    inputs, labels = identities(**numbers["identities"], seed=seed)
    held_out = torch.arange(len(labels)) % numbers["held_out"] == 0
    return Given((inputs[~held_out], labels[~held_out]), (inputs[held_out], labels[held_out]))


def contest(
    network: Callable[[], nn.Module], vectors: Tensor, task: Given, seed: int, numbers: Numbers, progress: Progress
) -> tuple[float, float, float]:
    """Return accuracies in percent with fixed vectors and with a linear layer, and the heads' parameters' ratio."""
    count, dim = vectors.shape
    accuracies, parameters = [], []
    for index, head in enumerate(
        (
            partial(create_head, NAME, in_features=dim, num_classes=count, vectors=vectors),
            partial(create_head, "softmax", in_features=dim, num_classes=count, bias=True),
        )
    ):
        model = learn(network, head, task, seed, numbers, part(progress, ("vectors", "linear")[index], index, 2))
        accuracies.append(100 * model.accuracy(task.validation))
        parameters.append(sum(each.numel() for each in model.head.parameters()))
    return accuracies[0], accuracies[1], parameters[0] / parameters[1]
