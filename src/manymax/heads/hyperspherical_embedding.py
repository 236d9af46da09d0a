"""Normalised softmax, and classes that were never trained as means of their examples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manymax.heads.cosine import unit
from manymax.heads.head import Common
from manymax.heads.margins import MarginHead, angle

if TYPE_CHECKING:
    from typing_extensions import Unpack


def class_means(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compute a row for each class from a few examples of it.

    $$w_c = \frac{\mu_c}{\lVert \mu_c \rVert}, \qquad \mu_c = \frac{1}{n_c} \sum_{i: y_i = c} \frac{x_i}{\lVert x_i
    \rVert}$$

    with $x_i$ the features of an example, $y_i$ its class and $n_c$ the number of examples of class $c$. The rows serve
    as `candidates` of a head of cosines, whose classes they then are.

    Args:
        input: features (n, d).
        target: int64 (n,), any numbers.

    Returns:
        The classes' numbers (classes,), ascending, and their rows (classes, d) of length 1.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> from manymax.heads.hyperspherical_embedding import class_means
        >>> class_means(torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]]), torch.tensor([7, 4, 4]))
        (tensor([4, 7]), tensor([[0., 1.],
                [1., 0.]]))

    Source:
        Pereira et al., 2021, Hyperspherical embedding for novel class classification, arXiv:2102.03243.
    """
    if input.dim() != 2 or target.shape != input.shape[:1]:
        raise ValueError(f"target: expected one class for each row of {tuple(input.shape)}, got {tuple(target.shape)}")
    classes, place = torch.unique(target, return_inverse=True)
    sums = input.new_zeros(len(classes), input.shape[1]).index_add(0, place, unit(input))
    return classes, unit(sums)


@torch.no_grad()
def nearest_class_mean(input: Tensor, support: Tensor, target: Tensor) -> Tensor:
    """Classify by the mean of a few examples of each class that is nearest in angle.

    Args:
        input: features (..., d).
        support: features of the examples (n, d).
        target: their classes, int64 (n,), any numbers.

    Returns:
        Classes, int64 (...), from those of the examples.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> from manymax.heads.hyperspherical_embedding import nearest_class_mean
        >>> nearest_class_mean(torch.tensor([[9.0, 1.0]]), torch.eye(2), torch.tensor([5, 6]))
        tensor([5])

    Source:
        Pereira et al., 2021, Hyperspherical embedding for novel class classification, arXiv:2102.03243.
    """
    classes, rows = class_means(support, target)
    return classes[(input @ rows.T).argmax(-1)]


class HypersphericalHead(MarginHead):
    r"""Softmax of cosines: features and classes on one sphere, so that new classes need only a mean.

    $$L = -\log \frac{e^{s \cos(\theta_y + a) - s m}}{e^{s \cos(\theta_y + a) - s m} + \sum_{j \ne y} e^{s \cos
    \theta_j}}$$

    with $\theta_j$ the angle between the features $h$ and the row $w_j$ of a class, $s$ the scale, $y$ the target and
    two margins that are 0 unless asked for: $m$ is CosFace's, $a$ is ArcFace's. `class_means` makes rows of classes
    that were not trained, and `nearest_class_mean` classifies with them.

    Args:
        in_features: length of $h$.
        num_classes: number of rows.
        scale: $s$, above 0; the inverse of the temperature.
        margin: $m$, at least 0.
        angular_margin: $a$ in radians, at least 0 and below $\pi$.
        **common: the options of every head but `bias`.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("hyperspherical-embedding", in_features=2, num_classes=2)
        >>> _ = head.load_state_dict({"weight": torch.eye(2)})
        >>> head.logits(torch.tensor([[5.0, 0.0]])).tolist()
        [[20.0, 0.0]]

    Source:
        Pereira et al., 2021, Hyperspherical embedding for novel class classification, arXiv:2102.03243; the loss and
        its temperature of 0.05: Zhai and Wu, 2018, Classification is a Strong Baseline for Deep Metric Learning,
        arXiv:1811.12649. The first paper states no scale that could be found; this one is the second's.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        scale: float = 20.0,
        margin: float = 0.0,
        angular_margin: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, scale=scale, **common)
        if not margin >= 0:
            raise ValueError(f"margin: expected at least 0, got {margin!r}")
        if not 0 <= angular_margin < math.pi:
            raise ValueError(f"angular_margin: expected an angle in [0, pi), got {angular_margin!r}")
        self.margin, self.angular_margin = margin, angular_margin

    def harder(self, cosine: Tensor) -> Tensor:
        """Return the cosine of the larger angle, less the margin."""
        larger = (angle(cosine) + self.angular_margin).cos() if self.angular_margin else cosine
        return larger - self.margin
