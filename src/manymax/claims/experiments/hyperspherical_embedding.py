"""Classes that were not trained, by normalised softmax and by losses of pairs (Pereira et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.embeddings import convolutional, digits, few_shot_accuracy, learn, only
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part
from manymax.heads.cosine import unit
from manymax.heads.registry import create_head

METRICS = ("novel_gain", "cosines_ratio", "novel_accuracy", "triplet_accuracy", "contrastive_accuracy")


class Triplet(nn.Module):
    """All triplets of a batch: an example's squared distance to its own class, less that to another, plus a margin.

    The mean is over the triplets that are not yet apart, since most soon are.
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        distance, same, itself = pairs(features, targets)
        excess = distance[:, :, None] - distance[:, None, :] + self.margin
        wanted = (same & ~itself)[:, :, None] & ~same[:, None, :]
        excess = torch.where(wanted, excess, 0).relu()
        return excess.sum() / (excess > 0).sum().clamp_min(1)


class Contrastive(nn.Module):
    """All pairs of a batch: squared distances within a class, and how much others fall short of a margin, squared."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        distance, same, itself = pairs(features, targets)
        short = (self.margin - distance.clamp_min(1e-12).sqrt()).relu().square()
        return distance[same & ~itself].mean() + short[~same].mean()


def pairs(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared distances of unit features, which are of one class, and which are one example; (n, n) each."""
    unit_features = unit(features)
    distance = (2 - 2 * unit_features @ unit_features.T).clamp_min(0)
    return distance, targets[:, None] == targets, torch.eye(len(targets), dtype=torch.bool)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train on some digits and classify the others, for several choices of which."""
    try:
        examples = digits()
    except ImportError as error:
        return dict.fromkeys(METRICS, Untestable(str(error)))
    dim, classes, batch_size = numbers["dim"], numbers["classes"], numbers["batch_size"]
    heads: dict[str, Callable[[], nn.Module]] = {
        "softmax": partial(create_head, "hyperspherical-embedding", in_features=dim, num_classes=classes),
        "triplet": partial(Triplet, numbers["triplet_margin"]),
        "contrastive": partial(Contrastive, numbers["contrastive_margin"]),
    }
    generator = torch.Generator().manual_seed(seed)
    accuracy = dict.fromkeys(heads, 0.0)
    for split in range(numbers["splits"]):
        order = torch.randperm(10, generator=generator).tolist()
        trained, (images, labels) = only(examples, order[:classes]), only(examples, order[classes:])
        task = Given(trained, trained)
        episodes = int(torch.randint(2**31, (), generator=generator))
        for index, (name, head) in enumerate(heads.items()):
            tell = part(progress, name, split * len(heads) + index, numbers["splits"] * len(heads))
            network = partial(convolutional, dim, numbers["channels"])
            features = learn(network, head, task, seed, numbers, tell).embed(images)
            for shots in numbers["shots"]:
                drawn = torch.Generator().manual_seed(episodes)  # the same supports for all
                found = few_shot_accuracy(features, labels, shots, numbers["episodes"], drawn)
                accuracy[name] += 100 * found / (numbers["splits"] * len(numbers["shots"]))
    return {
        "novel_gain": accuracy["softmax"] - accuracy["triplet"],
        "cosines_ratio": batch_size * classes / (batch_size * (batch_size - 1)),
        "novel_accuracy": accuracy["softmax"],
        "triplet_accuracy": accuracy["triplet"],
        "contrastive_accuracy": accuracy["contrastive"],
    }
