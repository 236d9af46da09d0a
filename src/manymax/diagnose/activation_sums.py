"""Activations and weights: how large, how heavy-tailed, how many entries are outliers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ACTIVATION = 1000.0  # An et al.'s code: an activation this many times the mean of all is an outlier


class ActivationSums:
    """Running sums of one place in a model, over all tokens and features."""

    def __init__(self) -> None:
        self.count = 0
        self.powers = torch.zeros(4, dtype=torch.float64)  # sums of x, x^2, x^3, x^4
        self.largest = 0.0
        self.ratio = 0.0
        self.outliers = 0
        self.where: tuple[int, int] | None = None  # token and feature of the largest ratio

    @torch.no_grad()
    def add(self, x: Tensor, keep: Tensor | None = None) -> None:
        """Add one tensor.

        Args:
            x: (B, N, D), or (rows, D).
            keep: bool (B, N), False at padding, which does not count.
        """
        if keep is not None and x.shape[:2] == keep.shape:
            tokens = keep.nonzero()[:, 1].cpu()
            x = x[keep]
        else:
            tokens = torch.arange(x.shape[-2]).repeat(max(x[..., 0].numel() // max(x.shape[-2], 1), 1))
            x = x.reshape(-1, x.shape[-1])
        if not x.numel():
            return
        size = x.abs().float()
        mean = size.mean(dtype=torch.float64)
        top = int(size.argmax())
        largest = float(size.view(-1)[top])
        ratio = largest / float(mean) if float(mean) > 0 else 0.0
        if ratio > self.ratio:
            self.ratio, self.where = ratio, (int(tokens[top // x.shape[-1]]), top % x.shape[-1])
        self.largest = max(self.largest, largest)
        self.outliers += int((size > ACTIVATION * float(mean)).sum())
        self.count += x.numel()
        square = (x64 := x.double()).square()
        self.powers += torch.stack([x64.sum(), square.sum(), (square * x64).sum(), square.square().sum()]).cpu()

    def numbers(self) -> dict[str, float]:
        """Return the largest absolute value, its ratio to the mean, the kurtosis (3 for a normal) and the outliers."""
        return {
            "infinity_norm": self.largest,
            "largest_over_mean": self.ratio,
            "kurtosis": self.kurtosis(),
            "outliers": float(self.outliers),
        }

    def kurtosis(self) -> float:
        """Return the fourth central moment over the square of the second; NaN where all entries are the same."""
        if not self.count:
            return float("nan")
        mean, second, third, fourth = (self.powers / self.count).tolist()
        variance = second - mean**2
        central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        return central / variance**2 if variance > 0 else float("nan")


@dataclass(frozen=True)
class WeightOutlier:
    """The entry of a matrix that is largest beside the mean of its column.

    Attributes:
        module: the linear layer.
        ratio: |w| over the mean |w| of the same input feature.
        row: its output feature.
        column: its input feature.
    """

    module: str
    ratio: float
    row: int
    column: int


def weight_outliers(model: nn.Module) -> list[WeightOutlier]:
    r"""Return the entry of each linear layer that stands out most from its column, the strongest first.

    $$r = \max_{i,j} \frac{|W_{ij}|}{\frac{1}{n} \sum_{m=1}^{n} |W_{mj}|}$$

    with $W$ a layer's weight of $n$ outputs and $j$ an input feature. The paper finds them in the projections that end
    an MLP, at the features where activations later are outliers; its code has no fixed threshold.

    Args:
        model: any model; `nn.Linear` layers are looked at.

    Returns:
        One entry for each linear layer with two outputs or more whose weight is not all zero.

    Example:
        >>> import torch, manymax as mm
        >>> layer = torch.nn.Linear(2, 4, bias=False)
        >>> _ = torch.nn.init.ones_(layer.weight)
        >>> layer.weight.data[3, 1] = 9.0
        >>> mm.diagnose.weight_outliers(layer)
        [WeightOutlier(module='', ratio=3.0, row=3, column=1)]

    Source:
        An et al., 2025, Systematic Outliers in Large Language Models, arXiv:2502.06415.
    """
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.out_features > 1 and module.weight.any():
            size = module.weight.detach().abs().float()
            ratio = size / size.mean(0).clamp(min=torch.finfo(torch.float32).tiny)
            top = int(ratio.argmax())
            place = divmod(top, module.in_features)
            found.append(WeightOutlier(name, float(ratio.view(-1)[top]), *place))
    return sorted(found, key=lambda one: -one.ratio)
