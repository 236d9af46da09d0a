"""Label-distributionally robust losses: limits, ranks under wrong labels, who is doubted (Zhu et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.noisy_labels import Networks, all_losses, mean_1
from manymax.claims.experiments.tables import Table, class_noise, digits, gaussians, loaded, uniform_noise
from manymax.claims.experiments.training import part, train
from manymax.data.task import stream
from manymax.heads.ldr import best_lambda, label_margins, ldr_kl, price

UNIFORM, CLASSES = (0.3, 0.6, 0.9), (0.1, 0.3, 0.5)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    names = list(all_losses(0.0))
    found = limits(seed)
    try:
        tables = {
            "digits": digits(),
            "wine": loaded("wine"),
            "breast_cancer": loaded("breast_cancer"),
            "gaussians": gaussians(),
        }
    except ImportError as error:
        missing = ["rank_lead", "place", "lambda_lead", *(f"rank_{name}" for name in names)]
        return found | dict.fromkeys(missing, Untestable(str(error)))
    accuracies, doubts = [], 0.0
    for index, (name, table) in enumerate(tables.items()):
        labels = noisy(table, seed)
        models = learn(table, labels, seed, numbers, part(progress, name, index, len(tables)))
        accuracies.append(torch.stack([accuracy(model, table) for model in models.values()]))
        if name == "digits":
            doubts = lambda_lead(models["aldr"], table, labels, numbers["margin"])
    mean_ranks = ranks(torch.cat(accuracies, dim=1)).mean(1)
    ours = mean_ranks[names.index("aldr")]
    return {
        **found,
        "rank_lead": float(mean_ranks[names.index("ce")] - ours),
        "place": 1 + int((mean_ranks < ours).sum()),
        "lambda_lead": doubts,
        **{f"rank_{name}": float(rank) for name, rank in zip(names, mean_ranks, strict=True)},
    }


def limits(seed: int) -> Metrics:
    """Return how far the loss is from what it tends to, in float64."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(200, 10, generator=generator, dtype=torch.float64)
    target = torch.randint(10, (200,), generator=generator)
    hinge = label_margins(scores, target, 1.0).amax(1)
    entropy = F.cross_entropy(scores, target, reduction="none") - torch.tensor(10.0, dtype=torch.float64).log()
    over_labels = torch.stack([ldr_kl(scores, torch.full_like(target, y), lam=1e6) for y in range(10)]).sum(0)
    return {
        "hinge_difference": float((ldr_kl(scores, target, lam=1e-4, margin=1.0) - hinge).abs().max()),
        "entropy_difference": float((ldr_kl(scores, target, lam=1.0) - entropy).abs().max()),
        "symmetry_difference": float(over_labels.max() - over_labels.min()),
    }


def noisy(table: Table, seed: int) -> Tensor:
    """Return the training labels under each noise, (n, settings), uniform ones first."""
    labels, generator = table.train[1], stream("noise", seed)
    found = [uniform_noise(labels, rate, table.classes, generator) for rate in UNIFORM]
    found += [class_noise(labels, rate, table.classes, generator) for rate in CLASSES]
    return torch.stack(found, 1)


def learn(table: Table, labels: Tensor, seed: int, numbers: Numbers, progress: Progress) -> Mapping[str, Networks]:
    """Return, for each loss, a network for each noise."""
    losses, models = all_losses(numbers["margin"]), {}
    sizes = {**numbers, "batch_size": min(numbers["batch_size"], len(labels))}
    for index, (name, loss) in enumerate(losses.items()):
        torch.manual_seed(seed)
        in_features = table.model_options["in_features"]
        model = Networks(labels.shape[1], in_features, numbers["hidden"], table.classes, loss)
        train(model, table.relabelled(labels), seed, sizes, part(progress, name, index, len(losses)))
        models[name] = model
    return models


@torch.no_grad()
def accuracy(model: Networks, table: Table) -> Tensor:
    """Return the test accuracy of each network."""
    inputs, targets = table.held_out()
    return (model.scores(inputs).argmax(-1) == targets).double().mean(-1)


def ranks(accuracies: Tensor) -> Tensor:
    """Return ranks, 1 the most accurate of a setting, ties shared, for accuracies (losses, settings)."""
    better = (accuracies[None] > accuracies[:, None]).sum(1)
    same = (accuracies[None] == accuracies[:, None]).sum(1)
    return better + (same + 1) / 2


@torch.no_grad()
def lambda_lead(model: Networks, table: Table, labels: Tensor, margin: float) -> float:
    """Return by how much the mean lambda of wrong labels is above that of right ones, at the lowest uniform noise."""
    inputs, right = table.train
    given = labels[:, 0]
    margins = label_margins(mean_1(model.scores(inputs)[0]), given, margin)
    lam = best_lambda(margins, 1.0, price(table.classes, 1.0))
    return float(lam[given != right].mean() - lam[given == right].mean())
