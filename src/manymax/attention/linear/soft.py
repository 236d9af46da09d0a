"""SOFT: attention with a Gaussian kernel through landmarks, without softmax."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.grid import GridConvolution, OnGrid, sides, widen
from manymax.attention.linear.newton import largest_sum, newton_inverse, safe_size
from manymax.attention.linear.parts import per_head
from manymax.attention.mechanism import Choices, Grid, one_each
from manymax.attention.options import check_sizes, check_sizes_or_none, value_width

RIDGE = 0.01  # what the authors add to the diagonal before they invert


class SOFT(OnGrid):
    r"""Attend with a Gaussian kernel, of which landmarks give a product of thin matrices.

    $$o = C A^{+} C^\top V, \qquad C_{il} = \kappa(q_i, l_l), \quad A_{lm} = \kappa(l_l, l_m), \quad
    \kappa(x, y) = e^{-\lVert x - y \rVert^2 / 2}$$

    where $q_i$ are queries divided by head_dim^(1/4), which are the keys, too, V has the values as rows, and the
    landmarks l are GELU(LN(·)) of means of queries, or of a convolution of them. $A^{+}$ is the inverse of $A + 0.01
    I$, by Newton's iteration $X \leftarrow 2X - X (A + 0.01 I) X$ from a multiple of $A + 0.01 I$, with the gradient
    of an inverse. With `ratio=1` every token is its own landmark and $o = \kappa(l, l) V$, which is quadratic.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        num_landmarks: of a sequence, at most, as many means of successive queries; of a grid the largest square of
            means that is no more.
        ratio: side of the convolution and its stride that make landmarks, as in the authors' models, instead of means;
            their number then grows with the tokens. 1 is the form of the last stage.
        tied: whether queries are keys, as the paper has it: the mean of a token's query and key, which is linear in
            its features if both are, stands for both. If not, $C^\top$ is made of the keys.
        symmetric: whether $A^{+}$ is $D A^{-1} D$ with $D = \mathrm{diag}(A 1)^{-1/2}$ and no 0.01 added (SOFT++).
        local: side of a depthwise convolution of the values that is added; 0 is none.
        iterations: Newton's.
        value_dim: the last dim of values; None is head_dim. Only the convolution asks for it.

    Raises:
        ValueError: if a number is too small, local is even, or there is not one query for each value where that is
            needed.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("soft", head_dim=16, num_heads=2, num_landmarks=4)
        >>> query, key, value = torch.randn(3, 1, 2, 12, 16).unbind()
        >>> attend(query, key, value, grid=(3, 4)).shape
        torch.Size([1, 2, 12, 16])

    Source:
        Lu et al., 2022, Softmax-free Linear Transformers, arXiv:2207.03341, after Lu et al., 2021, SOFT: Softmax-free
        Transformer with Linear Complexity, arXiv:2110.11945. In the authors' code one step size serves the whole batch
        in the symmetric form, here each matrix has its own.
    """

    family: ClassVar[str] = "linear"
    choices = Choices(
        "Gaussian kernel with 49 landmarks", "none", "adds", "inverse over landmarks", "", "depthwise convolution"
    )

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        num_landmarks: int = 49,
        ratio: int | None = None,
        tied: bool = True,
        symmetric: bool = False,
        local: int = 3,
        iterations: int = 20,
        value_dim: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        check_sizes(num_landmarks=num_landmarks, iterations=iterations)
        check_sizes_or_none(ratio=ratio)
        check_sizes(0, local=local)
        self.num_landmarks, self.ratio, self.tied = num_landmarks, ratio, tied
        self.symmetric, self.iterations = symmetric, iterations
        self.sample = None if ratio is None else nn.Conv2d(head_dim, head_dim, ratio, ratio, bias=ratio == 1)
        self.norm = nn.LayerNorm(head_dim)
        value_dim = value_width(value_dim, head_dim)
        self.local = GridConvolution(num_heads, value_dim, local, bias=False) if local else None
        self.fixed_value_dim = value_dim if local else None

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, grid: Grid | None = None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        if self.tied or self.local is not None:
            one_each(query, key)
        if not query.shape[2] or not key.shape[2]:
            return query.new_zeros(*query.shape[:3], value.shape[3])
        q, k, v = widen(query, key, value)
        q, k, v = (
            q * self.head_dim**-0.25,
            per_head(k, self.num_heads) * self.head_dim**-0.25,
            per_head(v, self.num_heads),
        )
        if self.tied:
            q = k = 0.5 * (q + k)
        own = keep if query.shape[2] == key.shape[2] else None
        raw, there = self._sampled(q, own, grid)
        landmarks = F.gelu(_cast_norm(self.norm, raw))
        if self.ratio == 1:
            out = gaussian(landmarks, landmarks) @ v
        else:
            to_landmarks = gaussian(q, landmarks) * there[:, None, None]
            inner = gaussian(landmarks, landmarks) * (there[:, :, None] * there[:, None])[:, None]
            out = to_landmarks @ (self.inverse(inner) @ (gaussian(landmarks, k) @ v))
        return (out if self.local is None else out + self.local(v, grid)).to(query.dtype)

    def inverse(self, matrix: Tensor) -> Tensor:
        """Return $A^{+}$ (..., m, m) of kernels of landmarks; rows of zeros, where there is none, stay apart."""
        if not self.symmetric:
            size = 1.8 / largest_sum(matrix) ** 2
            ridge = RIDGE * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
            return newton_inverse(matrix + ridge, size, self.iterations)
        sums = matrix.sum(-1)
        scale = torch.where(sums == 0, 0, torch.where(sums == 0, 1, sums).rsqrt())
        size = safe_size(matrix.detach())
        return scale[..., :, None] * newton_inverse(matrix, size, self.iterations) * scale[..., None, :]

    def _sampled(self, q: Tensor, keep: Tensor | None, grid: Grid | None) -> tuple[Tensor, Tensor]:
        """Return what landmarks are made of (B, H, m, D), and 1 where there is one, else 0, (B or 1, m)."""
        if self.sample is None:
            return means(q, keep, grid, self.num_landmarks)
        if (
            grid is None and keep is not None and self.ratio != 1
        ):  # padding is no part of a sequence: the others go first
            order = torch.argsort(keep.to(torch.uint8), dim=1, descending=True, stable=True)
            q = q.gather(2, order[:, None, :, None].expand_as(q))
            keep = keep.gather(1, order)
        (height, width), ratio = sides(grid, q.shape[2]), self.sample.stride[0]
        missing = (0, -width % ratio, 0, -height % ratio)
        batch, heads, _, dim = q.shape
        image = q.transpose(2, 3).reshape(batch * heads, dim, height, width)
        bias = None if self.sample.bias is None else self.sample.bias.to(q.dtype)
        sampled = F.conv2d(F.pad(image, missing), self.sample.weight.to(q.dtype), bias, stride=ratio).flatten(2)
        if keep is None:
            there = q.new_ones(1, sampled.shape[2])
        else:
            seen = F.pad(keep.reshape(batch, 1, height, width).to(q.dtype), missing)
            there = F.max_pool2d(seen, ratio).flatten(1)
        return sampled.transpose(1, 2).reshape(batch, heads, sampled.shape[2], dim), there


def means(q: Tensor, keep: Tensor | None, grid: Grid | None, most: int) -> tuple[Tensor, Tensor]:
    """Return means of successive queries (B, H, m, D), or of rectangles of a grid, and 1 where there is one, (B, m)."""
    batch, tokens = q.shape[0], q.shape[2]
    present = torch.ones(batch, tokens, dtype=torch.bool, device=q.device) if keep is None else keep
    if grid is None or grid[0] == 1:
        count = present.sum(1, keepdim=True)
        cells = count.clamp(min=1, max=most)
        cell = ((present.cumsum(1) - 1).clamp(min=0) * cells).div(count.clamp(min=1), rounding_mode="floor")
        number = most
    else:
        height, width = grid
        down, across = (min(int(most**0.5), side) for side in grid)
        row = torch.arange(height, device=q.device) * down // height
        column = torch.arange(width, device=q.device) * across // width
        cell, number = (row[:, None] * across + column).reshape(1, -1).expand(batch, -1), down * across
    where = F.one_hot(cell, number).to(q.dtype) * present[..., None]
    sizes = where.sum(1)
    sums = torch.einsum("bnm,bhnd->bhmd", where, q)
    return sums / sizes.clamp(min=1)[:, None, :, None], (sizes > 0).to(q.dtype)


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """Return exp(-|x - y|² / 2) of all pairs (..., n, m)."""
    halves = (0.5 * z.square().sum(-1) for z in (x, y))
    return torch.exp(x @ y.transpose(-2, -1) - next(halves)[..., :, None] - next(halves)[..., None, :])


def _cast_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Return a layer norm of x in x's dtype, whatever the parameters'."""
    return F.layer_norm(x, x.shape[-1:], norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)
