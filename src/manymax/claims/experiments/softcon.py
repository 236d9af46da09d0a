"""Collages of digits, pretrained by one positive or by the overlap of labels (Wang, Albrecht & Zhu, 2024)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.training import part, trained
from manymax.claims.experiments.views import images
from manymax.data.task import Examples, Split, stream
from manymax.heads.registry import create_head

SIDE = 2  # digits in a row and in a column
NOISE = 0.1  # standard deviation that a view adds to each pixel
RIDGE = 1.0


class Pretrained(nn.Module):
    """A CNN, a projection, and a head that compares two views."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * channels, 2 * width),
            nn.ReLU(),
        )
        # Features behind a ReLU all have cosines near 1; the norm, as in MoCo v3's projection, starts them near 0.
        self.projection = nn.Sequential(nn.Linear(2 * width, width), nn.BatchNorm1d(width, affine=False))
        self.head: Any = nn.Identity()

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Return the head's loss of two views; heads that know no labels are told which view is the same image's."""
        first, second = (self.projection(self.features(view(pixels))) for _ in range(2))
        wanted = labels if self.head.soft_targets else torch.arange(len(labels))
        loss: Tensor = self.head(first, wanted, candidates=second)
        return loss


def view(pixels: Tensor) -> Tensor:
    """Return images rolled by up to a pixel, darker or brighter, with noise."""
    down, right = torch.randint(-1, 2, (2,)).tolist()
    bright = 0.7 + 0.6 * torch.rand(len(pixels), 1, 1, 1)
    return bright * pixels.roll((down, right), (2, 3)) + NOISE * torch.randn_like(pixels)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Pretrain by each loss and probe the features."""
    sizes = numbers["collages"]
    train, probe, test = (
        collages(split, sizes[name], seed, name)
        for name, split in {"train": "train", "probe": "train", "test": "validation"}.items()
    )
    heads: dict[str, tuple[str, dict[str, Any]]] = {
        "infonce": ("infonce", {}),
        "softcon": ("softcon", {}),
        "both": ("softcon", {"instance": 1.0}),
    }
    found = {}
    for index, (name, (head, options)) in enumerate(heads.items()):
        make = partial(pretrained, head, options, numbers["channels"], numbers["width"])
        tell = part(progress, name, index, len(heads))
        found[name] = precision(trained(make, Given(train, test), seed, numbers, tell), probe, test)
    torch.manual_seed(seed)
    untrained = precision(pretrained("infonce", {}, numbers["channels"], numbers["width"]), probe, test)
    return {
        "map_gain": found["softcon"] - found["infonce"],
        "infonce_map": found["infonce"],
        "both_map_gain": found["both"] - found["infonce"],
        "untrained_map": untrained,
    }


def pretrained(head: str, options: dict[str, Any], channels: int, width: int) -> Pretrained:
    """Return a new network with a head; it starts the same whatever the head."""
    model = Pretrained(channels, width)
    model.head = create_head(head, in_features=width, num_classes=10, **options)
    return model


def collages(split: str, count: int, seed: int, name: str) -> Examples:
    """Return collages (count, 1, 16, 16) of digits of a split, and their labels, multi-hot (count, 10)."""
    kind: Split = "train" if split == "train" else "validation"
    pixels, digits = images(kind)
    chosen = torch.randint(len(pixels), (count, SIDE * SIDE), generator=stream("collages", seed, name))
    tiles = pixels[chosen].view(count, SIDE, SIDE, 8, 8)  # down, right
    joined = tiles.transpose(2, 3).reshape(count, 1, SIDE * 8, SIDE * 8)
    return joined, torch.zeros(count, 10).scatter(1, digits[chosen], 1.0)


@torch.no_grad()
def precision(model: Pretrained, probe: Examples, test: Examples) -> float:
    """Return the mean average precision over labels of a linear probe, in points."""
    (x, y), (other, wanted) = ((model.features(pixels).double(), labels.double()) for pixels, labels in (probe, test))
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    x, other = ((z - mean) / scale for z in (x, other))
    weight = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - y.mean(0)))
    return 100 * average_precision(other @ weight, wanted)


def average_precision(scores: Tensor, wanted: Tensor) -> float:
    """Return the mean over columns, those with anything wanted, of the mean precision at each wanted entry."""
    hits = wanted.gather(0, scores.argsort(0, descending=True))
    places = torch.arange(1, len(hits) + 1, dtype=hits.dtype)[:, None]
    precisions = (hits * hits.cumsum(0) / places).sum(0)
    some = hits.sum(0) > 0
    return float((precisions[some] / hits.sum(0)[some]).mean())
