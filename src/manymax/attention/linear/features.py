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

    In float32 all features of x are 0 from lengths of 16 to 20 d^(1/4) on: 45 to 56 for d = 64, or entries of size 6.
    Where sums of weights divide outputs, `shifted` gives features that do not underflow, whatever the length.

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
        features: Tensor = self.exponents(x).exp() / len(self.projection) ** 0.5
        return features.to(x.dtype)

    def exponents(self, x: Tensor) -> Tensor:
        """Return the logarithms of the features, up to a constant, in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32)) / x.shape[-1] ** 0.25
        exponents: Tensor = x @ self.projection.to(x.dtype).T - 0.5 * x.square().sum(-1, keepdim=True)
        return exponents

    def shifted(
        self, query: Tensor, key: Tensor, keep: Tensor | None, start: Tensor | None, *, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        r"""Return features that do not underflow and whose products are those of features up to a factor of the query.

        $$\phi(k_j)_r = e^{e_{jr} - M_{tr}}, \qquad \phi(q_t)_r = e^{e_{tr} + M_{tr} - \max_s (e_{ts} + M_{ts})}$$

        with $M_{tr}$ the largest exponent of feature r among the keys up to t. Where it rises the sums of keys before
        shrink by $e^{M_{t-1,r} - M_{tr}}$, the decay.

        Args:
            query: (B, H, Nq, d).
            key: (B, H, N, d).
            keep: (B, N), False at padding; None is none.
            start: M before the first key, (B, H, m); None is -inf, of no key.
            whole: whether M is that of all keys, and nothing decays.

        Returns:
            Features of queries and of keys, the log decay (B, H, N, m) or None, and M after the last key.
        """
        read, write = self.exponents(query), self.exponents(key)
        if keep is not None:
            write = torch.where(keep[:, None, :, None], write, -torch.inf)
        start = write.new_full((*write.shape[:2], write.shape[3]), -torch.inf) if start is None else start
        largest = torch.cat([start[:, :, None], write.detach()], 2)
        largest = largest.amax(2, keepdim=True) if whole else largest.cummax(2).values
        after, finite = largest[:, :, -1], torch.where(largest == -torch.inf, 0, largest)
        decay = None
        if not whole:
            decay = torch.where(largest[:, :, :-1] == -torch.inf, 0, largest[:, :, :-1] - finite[:, :, 1:])
            finite = finite[:, :, 1:]
        read = read + finite
        read = read - read.detach().amax(-1, keepdim=True)
        return read.exp().to(query.dtype), (write - finite).exp().to(key.dtype), decay, after


def orthogonal_normal(rows: int, dim: int) -> Tensor:
    """Return normal rows (rows, dim) that are orthogonal within blocks of dim: less variance at the same mean."""
    blocks = [torch.linalg.qr(torch.randn(dim, dim))[0] for _ in range(-(-rows // dim))]
    lengths: Tensor = torch.linalg.vector_norm(torch.randn(rows, dim), dim=1, keepdim=True)
    return torch.cat(blocks)[:rows] * lengths


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x scaled to length 1 along its last dim; a vector of zeros stays zero, with zero gradient."""
    scale: Tensor = torch.rsqrt(x.square().sum(-1, keepdim=True) + eps**2)
    return x * scale
