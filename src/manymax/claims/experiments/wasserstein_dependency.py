"""Strips of digits learnt with and without a bound of the critic's slope (Ozair et al., 2019)."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.given import Given, perceptron
from manymax.claims.experiments.training import part, trained
from manymax.claims.experiments.views import images
from manymax.data.task import Split, stream
from manymax.heads.wasserstein_dependency import wpc_loss

RIDGE = 1.0


class Predictor(nn.Module):
    """Two encoders whose dot product is the critic."""

    def __init__(self, pixels: int, hidden: int, width: int, gp: float) -> None:
        super().__init__()
        self.first, self.second = (perceptron(pixels, [hidden], width) for _ in range(2))
        self.gp, self.most = gp, -math.inf

    def critic(self, x: Tensor, y: Tensor) -> Tensor:
        """Return scores of all pairs."""
        scores: Tensor = self.first(x) @ self.second(y).T
        return scores

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss, and take note of the highest bound of mutual information, above that of the batch."""
        if not self.gp:
            loss = wpc_loss(self.critic, x, y, gp=0.0)
            self.most = max(self.most, -float(loss.detach()))
            return loss
        return wpc_loss(self.critic, x, y, gp=self.gp)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train with each number of tiles, without and with the penalty."""
    tiles = numbers["tiles"]
    accuracies: dict[tuple[int, bool], float] = {}
    most = -math.inf
    for index, (place, bounded) in enumerate((place, bounded) for place in range(3) for bounded in (False, True)):
        count, sizes = tiles[place], numbers["strips"]
        digits = {
            name: torch.randint(10, (size, count), generator=stream("strips", seed, name, count))
            for name, size in sizes.items()
        }
        views = [strips("train", digits["train"], seed, view) for view in (0, 1)]
        task = Given((views[0], views[1]), (views[0][:0], views[1][:0]))
        make = partial(Predictor, 64 * count, numbers["hidden"], numbers["width"], numbers["gp"] if bounded else 0.0)
        tell = part(progress, f"{count} digits{', bounded' * bounded}", index, 6)
        model: Predictor = trained(make, task, seed, numbers, tell)
        most = max(most, model.most)
        probe = strips("train", digits["probe"], seed, 2), digits["probe"]
        test = strips("validation", digits["test"], seed, 3), digits["test"]
        accuracies[place, bounded] = readout(model.first, probe, test)
    return {
        "accuracy_ratio_4": accuracies[1, True] / accuracies[1, False],
        "accuracy_ratio_9": accuracies[2, True] / accuracies[2, False],
        "cpc_fall": accuracies[0, False] - accuracies[2, False],
        "bound_excess": most,
        "cpc_accuracy_1": accuracies[0, False],
        "cpc_accuracy_4": accuracies[1, False],
        "cpc_accuracy_9": accuracies[2, False],
        "wpc_accuracy_1": accuracies[0, True],
    }


def strips(split: Split, digits: Tensor, seed: int, view: int) -> Tensor:
    """Return strips (n, 64 k) of images of a split that show the digits (n, k), other ones for another view."""
    pixels, labels = images(split)
    chance = torch.rand(digits.shape, generator=stream("view", seed, split, view, digits.shape[1]))
    chosen = torch.zeros_like(digits)
    for digit in range(10):
        own = (labels == digit).nonzero()[:, 0]
        chosen = torch.where(digits == digit, own[(chance * len(own)).long()], chosen)
    return pixels[chosen].flatten(1)


@torch.no_grad()
def readout(encoder: nn.Module, probe: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Return the share of digits that a ridge regression reads from the features, the mean over places."""
    (x, y), (other, wanted) = ((encoder(pixels).double(), digits) for pixels, digits in (probe, test))
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    x, other = ((z - mean) / scale for z in (x, other))
    hot = nn.functional.one_hot(y, 10).double().flatten(1)  # (n, 10 k)
    weight = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (hot - hot.mean(0)))
    read = (other @ weight + hot.mean(0)).view(len(other), -1, 10).argmax(-1)
    return float((read == wanted).double().mean())
