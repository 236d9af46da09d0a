"""Networks that learn an embedding with a head, data for them, and how good an embedding is for new classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manymax.claims.claim import Numbers, Progress
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import trained
from manymax.data.digits import Digits
from manymax.data.task import Examples
from manymax.heads.cosine import unit
from manymax.heads.hyperspherical_embedding import nearest_class_mean


class Embedder(nn.Module):
    """A network that learns with a head, and whose features are used without it."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the head's loss."""
        loss: Tensor = self.head(self.network(inputs), targets)
        return loss

    @torch.no_grad()
    def embed(self, inputs: Tensor) -> Tensor:
        """Return features of length 1."""
        return unit(self.network(inputs))

    @torch.no_grad()
    def accuracy(self, examples: Examples) -> float:
        """Return the share of examples that the head classifies as labelled."""
        head: Any = self.head
        inputs, labels = examples
        return float((head.predict(self.network(inputs)) == labels).double().mean())


def convolutional(dim: int, channels: int) -> nn.Sequential:
    """Return two layers of convolution and one linear for images of 8 x 8 pixels."""
    return nn.Sequential(*_convolutions(channels), nn.Flatten(), nn.Linear(8 * channels, dim))


def pooled(dim: int, channels: int) -> nn.Sequential:
    """Return three layers of convolution for images of 8 x 8 pixels, whose features are means of ReLUs."""
    last = nn.Conv2d(2 * channels, dim, 3, padding=1)
    return nn.Sequential(*_convolutions(channels), last, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())


def _convolutions(channels: int) -> list[nn.Module]:
    """Return layers from 8 x 8 pixels to 2 x 2 with twice the channels."""
    first, second = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 2 * channels, 3, padding=1)
    return [first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2)]


def learn(
    network: Callable[[], nn.Module],
    head: Callable[[], nn.Module],
    task: Given,
    seed: int,
    numbers: Numbers,
    progress: Progress,
) -> Embedder:
    """Train a network with a head; the network starts the same whatever the head. Numbers are those of `train`."""
    model: Embedder = trained(lambda: Embedder(network(), head()), task, seed, numbers, progress)
    return model


def digits() -> Examples:
    """Return all of scikit-learn's images and labels.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    task = Digits()
    pieces = [task.examples(split) for split in ("train", "validation")]
    return torch.cat([images for images, _ in pieces]), torch.cat([labels for _, labels in pieces])


def only(examples: Examples, classes: Sequence[int]) -> Examples:
    """Return the examples of some classes, numbered in the order in which these are given."""
    inputs, labels = examples
    place = torch.full((int(labels.max()) + 1,), -1)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    kept = place[labels] >= 0
    return inputs[kept], place[labels[kept]]


def mislabelled(labels: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return labels of which a share, drawn at random, is another class."""
    other = (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes
    return torch.where(torch.rand(labels.shape, generator=generator) < share, other, labels)


def identities(count: int, examples: int, *, width: int, latent: int, spread: float, seed: int) -> Examples:
    """Return vectors (count * examples, width) of identities that a random network has bent, and their numbers.

    An identity is a normal point of `latent` numbers; its examples are that far from it, and as many further numbers
    of each say nothing about it.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, 1, latent, generator=generator)
    near = centres + spread * torch.randn(count, examples, latent, generator=generator)
    points = torch.cat([near, torch.randn(count, examples, latent, generator=generator)], -1).flatten(0, 1)
    bend = torch.randn(2 * latent, width, generator=generator) / (2 * latent) ** 0.5
    again = torch.randn(width, width, generator=generator) / width**0.5
    return torch.tanh(points @ bend) @ again, torch.arange(count).repeat_interleave(examples)


def mean_average_precision(features: Tensor, labels: Tensor) -> float:
    """Return the mean over examples of the average precision with which each finds its class among all others."""
    scores = (features @ features.T).fill_diagonal_(-torch.inf)
    order = scores.argsort(-1, descending=True)[:, :-1]
    hits = (labels[order] == labels[:, None]).double()
    precision = hits.cumsum(-1) / torch.arange(1, hits.shape[1] + 1)
    found = hits.sum(-1)
    return float(((precision * hits).sum(-1) / found)[found > 0].mean())


def true_accept_rate(features: Tensor, labels: Tensor, false_accept_rate: float) -> float:
    """Return the share of pairs of one class above the cosine that this share of other pairs exceeds."""
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    cosines, same = (features @ features.T)[first, second], labels[first] == labels[second]
    others = cosines[~same].sort(descending=True).values
    threshold = others[min(len(others) - 1, int(false_accept_rate * len(others)))]
    return float((cosines[same] > threshold).double().mean())


def few_shot_accuracy(features: Tensor, labels: Tensor, shots: int, episodes: int, generator: torch.Generator) -> float:
    """Return how often the nearest mean of a few examples of each class is that of an example's own class."""
    right = 0.0
    for _ in range(episodes):
        order = torch.randperm(len(labels), generator=generator)
        shuffled = labels[order]
        # The number of an example within its class, in this episode's order.
        turn = (shuffled[:, None] == shuffled).tril(-1).sum(-1)
        support, query = order[turn < shots], order[turn >= shots]
        found = nearest_class_mean(features[query], features[support], labels[support])
        right += float((found == labels[query]).double().mean())
    return right / episodes
