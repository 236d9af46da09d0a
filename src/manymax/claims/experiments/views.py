"""Networks that learn from two views of one thing, and how well one view finds the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manymax.claims.experiments.given import Given
from manymax.data.digits import Digits
from manymax.data.task import Examples, Split
from manymax.heads.cosine import unit


class Towers(nn.Module):
    """An encoder for each view, and a head whose candidates are the other view's embeddings."""

    def __init__(self, first: nn.Module, second: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.head = first, second, head

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the head's loss, where each x belongs to the y of its number."""
        loss: Tensor = self.head(self.first(x), torch.arange(len(x)), candidates=self.second(y))
        return loss

    @torch.no_grad()
    def recall(self, examples: Examples) -> float:
        """Return the share of first views whose own second view is the nearest of all by its cosine."""
        x, y = (unit(tower(view)) for tower, view in zip((self.first, self.second), examples, strict=True))
        return float(((x @ y.T).argmax(1) == torch.arange(len(x))).double().mean())


def images(split: Split) -> Examples:
    """Return scikit-learn's digits (n, 8, 8) and labels.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    pixels, labels = Digits().examples(split)
    return pixels[:, 0], labels


def halves() -> Given:
    """Return the left and the right half of each digit, (n, 32)."""

    def both(split: Split) -> Examples:
        pixels, _ = images(split)
        return pixels[..., :4].flatten(1), pixels[..., 4:].flatten(1)

    return Given(both("train"), both("validation"))
