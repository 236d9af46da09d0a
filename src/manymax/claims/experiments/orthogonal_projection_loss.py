"""Cross-entropy with and without orthogonal projection: accuracy, wrong labels, angles (Ranasinghe et al., 2021)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.embeddings import Embedder, digits, few_shot_accuracy, learn, mislabelled, only, pooled
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.data.task import Examples
from manymax.heads.registry import create_head

NAME = "orthogonal-projection-loss"
METRICS = (
    "clean_points",
    "noise_20_points",
    "noise_40_points",
    "inter_cosine_ratio",
    "intra_cosine_gain",
    "clean_accuracy",
    "noise_20_accuracy",
    "noise_40_accuracy",
    "best_gamma_points",
    "attacked_points",
    "few_shot_points",
)
NOISES = {"clean": 0.0, "noise_20": 0.2, "noise_40": 0.4}
FEW = 6  # digits that are trained before the other four are learnt from few examples


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    task = Digits()
    try:
        images, labels = task.examples("train")
    except ImportError as error:
        return dict.fromkeys(METRICS, Untestable(str(error)))
    held_out = task.held_out()
    gammas = numbers["gammas"]
    parts, done = 2 * len(NOISES) + len(gammas) - 1 + 2, 0

    def model(examples: Examples, gamma: float | None) -> Embedder:
        """Return a trained network; without a gamma with cross-entropy alone."""
        nonlocal done
        classes, dim = int(examples[1].max()) + 1, numbers["dim"]
        options = {"in_features": dim, "num_classes": classes, "bias": True}
        head = (
            partial(create_head, "softmax", **options)
            if gamma is None
            else partial(create_head, NAME, gamma=gamma, **options)
        )
        network = partial(pooled, dim, numbers["channels"])
        tell = part(progress, "cross-entropy" if gamma is None else f"gamma {gamma:g}", done, parts)
        done += 1
        return learn(network, head, Given(examples, held_out), seed, numbers, tell)

    metrics: Metrics = {}
    clean: list[Embedder] = []
    for name, share in NOISES.items():
        wrong = mislabelled(labels, share, 10, torch.Generator().manual_seed(seed))
        plain, ours = (model((images, wrong), gamma) for gamma in (None, gammas[0]))
        accuracies = [100 * each.accuracy(held_out) for each in (plain, ours)]
        metrics |= {f"{name}_points": accuracies[1] - accuracies[0], f"{name}_accuracy": accuracies[1]}
        clean = clean or [plain, ours]
    plain, ours = clean
    others = [model((images, labels), gamma) for gamma in gammas[1:]]
    best = max(each.accuracy(held_out) for each in (ours, *others))
    (inter, intra), (our_inter, our_intra) = (angles(each, held_out) for each in (plain, ours))
    attacked = [100 * attacked_accuracy(each, held_out, numbers["attack"]) for each in (plain, ours)]
    known, (new, wanted) = only(digits(), range(FEW)), only(digits(), range(FEW, 10))
    few = []
    for gamma in (None, gammas[0]):
        features = model(known, gamma).embed(new)
        drawn = torch.Generator().manual_seed(seed)
        few.append(100 * few_shot_accuracy(features, wanted, numbers["shots"], numbers["episodes"], drawn))
    return metrics | {
        "inter_cosine_ratio": our_inter / inter,
        "intra_cosine_gain": our_intra - intra,
        "best_gamma_points": 100 * (best - plain.accuracy(held_out)),
        "attacked_points": attacked[1] - attacked[0],
        "few_shot_points": few[1] - few[0],
    }


def angles(model: Embedder, examples: Examples) -> tuple[float, float]:
    """Return the mean |cosine| between features of different classes, and the mean cosine within a class."""
    inputs, labels = examples
    features = model.embed(inputs).double()
    cosines, same = features @ features.T, labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool)
    return float(cosines[~same].abs().mean()), float(cosines[same & ~itself].mean())


def attacked_accuracy(model: Embedder, examples: Examples, size: float) -> float:
    """Return the accuracy after one step of this size on each pixel up the gradient of cross-entropy (FGSM)."""
    inputs, labels = examples
    images = inputs.clone().requires_grad_()
    head = model.head
    scores: Tensor = head.logits(model.network(images))  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels), images)
    return model.accuracy(((inputs + size * gradient.sign()).clamp(0, 1), labels))
