"""Attention of the Galerkin Transformer: products of normalised tokens, without softmax, as operators on functions."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax._names import closest
from manymax.attention.dense.api import attention
from manymax.attention.linear.grid import OnGrid, kept, number, places, sides, widen
from manymax.attention.linear.parts import HeadLinear, per_head
from manymax.attention.mechanism import Choices, Grid
from manymax.attention.options import value_width
from manymax.maps.softmax import softmax

KINDS = ("galerkin", "fourier", "softmax", "linear")
NORMS = ("layer", "instance")


class OperatorAttention(OnGrid):
    r"""Attend with keys and values that are normalised and multiplied first, like basis functions and their integrals.

    $$o = \frac{1}{n} Q \bigl(\mathrm{LN}(K)^\top \mathrm{LN}(V)\bigr) \;\text{(galerkin)}, \qquad
    o = \frac{1}{n \sqrt{w}} \bigl(\mathrm{LN}(Q)\, \mathrm{LN}(K)^\top\bigr) V \;\text{(fourier)}$$

    where the rows of Q, K and V are queries, keys and values, n is the number of keys, w the number of channels that
    meet, and LN the layer norm of each head's own gain and shift. "softmax" is $\mathrm{softmax}(Q K^\top / \sqrt{w})
    V$ and "linear" is $\mathrm{softmax}_{channels}(Q) (\mathrm{softmax}_{tokens}(K)^\top V)$, the two that the paper
    compares with. All but "softmax" take linear time: "fourier" is computed from the right, too.

    With `pos_dim` the coordinates of each token are put beside the channels of queries, keys and values, w is head_dim
    + pos_dim, and a linear map of each head takes the output back to the values' channels.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        kind: "galerkin", "fourier", "softmax" or "linear".
        norm: "layer", or "instance" for the norm of each channel over the tokens.
        pos_dim: 0, 1 for coordinates from 0 to 1 along a sequence, or 2 for those of a grid.
        value_dim: the last dim of values; None is head_dim.

    Raises:
        ValueError: if the kind, the norm or pos_dim is unknown, or a grid of several rows has one coordinate.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("galerkin-transformer", head_dim=16, num_heads=2, pos_dim=2)
        >>> query, key, value = torch.randn(3, 1, 2, 12, 16).unbind()
        >>> attend(query, key, value, grid=(3, 4)).shape
        torch.Size([1, 2, 12, 16])

    Source:
        Cao, 2021, Choose a Transformer: Fourier or Galerkin, arXiv:2105.14995. The authors' code also divides "linear"
        by n, and maps the output back over all heads at once; the small start of its projections is a model's part.
    """

    family: ClassVar[str] = "linear"
    choices = Choices("identity or layer norm", "none", "adds", "layer norm of keys and values, number of keys", "")

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        kind: str = "galerkin",
        norm: str = "layer",
        pos_dim: int = 0,
        value_dim: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        for name, given, known in (("kind", kind, KINDS), ("norm", norm, NORMS)):
            if given not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}{closest(given, known)}")
        if pos_dim not in {0, 1, 2}:
            raise ValueError(f"pos_dim: expected 0, 1 or 2, got {pos_dim}")
        self.kind, self.pos_dim = kind, pos_dim
        value_dim = value_width(value_dim, head_dim)
        norms = {"galerkin": {"key": head_dim, "value": value_dim}, "fourier": {"query": head_dim, "key": head_dim}}
        self.norms = nn.ModuleDict(
            {name: HeadTokenNorm(num_heads, dim, over=norm) for name, dim in norms.get(kind, {}).items()}
        )
        self.fixed_value_dim = value_dim if pos_dim or "value" in self.norms else None
        self.back = HeadLinear(num_heads, value_dim + pos_dim, value_dim) if pos_dim else None

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, grid: Grid | None = None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        own = keep if query.shape[2] == key.shape[2] else None  # which queries are no padding
        q, k, v = widen(query, key, value)
        q = self._prepared("query", q, own, grid)
        k, v = self._prepared("key", k, keep, grid), self._prepared("value", v, keep, grid)
        out = self._attend(q, k, v, keep)
        out = out if self.back is None else self.back(out)
        return out.to(query.dtype)

    def _prepared(self, name: str, x: Tensor, keep: Tensor | None, grid: Grid | None) -> Tensor:
        """Return tokens (B, H, N, w) of one head for each query head, normalised and beside their coordinates."""
        x = per_head(x, self.num_heads)
        x = self.norms[name](x, keep) if name in self.norms else x
        if self.pos_dim:
            where = coordinates(x, keep, grid, self.pos_dim)
            x = torch.cat([x, where[:, None].expand(*x.shape[:3], -1)], -1)
        return kept(x, keep)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        if self.kind == "softmax":
            attended: Tensor = attention(q, k, v, None if keep is None else keep[:, None, None])
            return attended
        if self.kind == "linear":
            k = softmax(k, 2, mask=None if keep is None else keep[:, None, :, None])
            return softmax(q, 3) @ (k.transpose(2, 3) @ v)
        out = q @ (k.transpose(2, 3) @ v) / number(k, keep)
        return out * q.shape[3] ** -0.5 if self.kind == "fourier" else out


class HeadTokenNorm(nn.Module):
    """Each head's tokens with mean 0 and variance 1 over channels, or each channel's over tokens, times a gain.

    Args:
        num_heads: heads.
        dim: channels of a head.
        over: "layer" for channels, "instance" for tokens.
        eps: added to the variance.
    """

    def __init__(self, num_heads: int, dim: int, *, over: str, eps: float = 1e-5) -> None:
        super().__init__()
        self.gain, self.shift = (
            nn.Parameter(torch.ones(num_heads, 1, dim)),
            nn.Parameter(torch.zeros(num_heads, 1, dim)),
        )
        self.over, self.eps = over, eps

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Return x (B, H, N, D) normalised; tokens where keep (B, N) is False do not count."""
        if self.over == "layer":
            normal = F.layer_norm(x, x.shape[3:], eps=self.eps)
        else:
            count = number(x, keep)
            centred = kept(x - kept(x, keep).sum(2, keepdim=True) / count, keep)
            normal = centred * torch.rsqrt(centred.square().sum(2, keepdim=True) / count + self.eps)
        return normal * self.gain.to(x.dtype) + self.shift.to(x.dtype)


def coordinates(x: Tensor, keep: Tensor | None, grid: Grid | None, pos_dim: int) -> Tensor:
    """Return where the tokens of x (B, H, N, D) are, from 0 to 1 along each side, (B or 1, N, pos_dim)."""
    height, width = sides(grid, x.shape[2])
    if grid is None and keep is not None:  # padding is no part of a sequence
        rank, last = keep.cumsum(1) - 1, (keep.sum(1, keepdim=True) - 1).clamp(min=1)
        column = (rank / last).to(x.dtype)
        where = torch.stack([torch.zeros_like(column), column], -1)
    else:
        where = places(grid, x).to(x.dtype) / x.new_tensor([max(height - 1, 1), max(width - 1, 1)])
    if pos_dim == 1 and height > 1:
        raise ValueError(f"grid: expected one row for pos_dim=1, got {grid}")
    return where[..., 2 - pos_dim :]
