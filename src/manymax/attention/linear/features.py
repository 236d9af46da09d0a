"""Feature maps: what queries and keys become before they meet in a product."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax._names import closest

Features = Callable[[Tensor], Tensor]


def elu_plus_one(x: Tensor) -> Tensor:
    """Return elu(x) + 1."""
    return F.elu(x) + 1


def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x


def squared_relu(x: Tensor) -> Tensor:
    """Return the square of the positive part of x."""
    return F.relu(x).square()


# Functions by name, no lambdas: a module that holds one is pickled, and saved whole, by that name.
FEATURES: dict[str, Features] = {
    "elu": elu_plus_one,
    "exp": torch.exp,
    "identity": identity,
    "leaky_relu": F.leaky_relu,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "squared_relu": squared_relu,
}


def feature_map(name: str, also: tuple[str, ...] = ()) -> Features:
    """Return a feature map by name.

    Args:
        name: one of FEATURES.
        also: further names that the caller knows, for the message.
    """
    if name not in FEATURES:
        known = sorted([*FEATURES, *also])
        raise ValueError(f"feature_map: expected one of {', '.join(known)}, got {name!r}{closest(name, known)}")
    return FEATURES[name]


class Favor(nn.Module):
    r"""Positive random features, whose products estimate exp(q · k / sqrt(d)) without bias.

    $$\phi(x) = \frac{1}{\sqrt{m}} \exp\bigl(W x' - \tfrac{1}{2} \lVert x' \rVert^2\bigr), \qquad x' = x / d^{1/4}$$

    The m rows of W are normal, and orthogonal within blocks of d. They are drawn once, from torch's global generator.

    Args:
        head_dim: d.
        num_features: m.

    Source:
        Choromanski et al., 2020, Rethinking Attention with Performers, arXiv:2009.14794.
    """

    projection: Tensor

    def __init__(self, head_dim: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("projection", orthogonal_normal(num_features, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (..., m) of x (..., d)."""
        projection = self.projection.to(x.dtype)
        x = x / x.shape[-1] ** 0.25
        exponents = x @ projection.T - 0.5 * x.square().sum(-1, keepdim=True)
        features: Tensor = exponents.exp() / len(projection) ** 0.5
        return features


def orthogonal_normal(rows: int, dim: int) -> Tensor:
    """Return normal rows (rows, dim) that are orthogonal within blocks of dim: less variance at the same mean."""
    blocks = [torch.linalg.qr(torch.randn(dim, dim))[0] for _ in range(-(-rows // dim))]
    lengths: Tensor = torch.linalg.vector_norm(torch.randn(rows, dim), dim=1, keepdim=True)
    return torch.cat(blocks)[:rows] * lengths


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x scaled to length 1 along its last dim; a vector of zeros stays zero, with zero gradient."""
    scale: Tensor = torch.rsqrt(x.square().sum(-1, keepdim=True) + eps**2)
    return x * scale
