"""InLine attention: linear attention normalised by a subtraction, with a convolution that depends on the image."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.features import feature_map as find_feature_map
from manymax.attention.linear.grid import OnGrid, check_side, kept, number, sides, widen
from manymax.attention.linear.parts import HeadLinear, per_head
from manymax.attention.mechanism import Choices, Grid, one_each
from manymax.attention.options import check_sizes, value_width


class InLineAttention(OnGrid):
    r"""Attend with products less their mean, plus one over n: different queries have different weights.

    $$a_{ij} = \frac{s}{n} \Bigl(\phi(q_i) \cdot \phi(k_j) - \frac{1}{n} \sum_m \phi(q_i) \cdot \phi(k_m)\Bigr) +
    \frac{1}{n}, \qquad o_i = \sum_j a_{ij} v_j + \sum_{j \in \mathcal{N}(i)} r_{j - i} \odot v_j$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, n is their number, $\phi$ the feature map, s =
    head_dim^(-1/2), $\mathcal{N}(i)$ the places beside i and r a kernel of each channel that depends on the image:
    $r = W_2\, \mathrm{GELU}(W_1 \bar{v} + b_1) + b_2$ with the mean $\bar{v}$ of its values. The weights sum to 1 and
    may be negative. Computed as $o_i = \frac{s}{n} \phi(q_i)^\top \sum_j \phi(k_j) v_j^\top + (1 - s\, \phi(q_i) \cdot
    \bar{k}) \bar{v}$, linear in n.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        feature_map: "identity", "relu", "exp" (the authors' code has exp(x / 5)), "leaky_relu", or any other of
            "elu", "sigmoid", "silu" and "squared_relu".
        local: side of the kernel r, odd; 0 leaves it out.
        value_dim: the last dim of values; None is head_dim. Only the kernel asks for it.

    Raises:
        ValueError: if the feature map is unknown or local is even.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("inline-attention", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 12, 16).unbind()
        >>> attend(query, key, value, grid=(3, 4)).shape
        torch.Size([1, 2, 12, 16])

    Source:
        Han et al., 2024, Bridging the Divide: Reconsidering Softmax and Linear Attention, arXiv:2412.06590. The
        factor s / n is the code's, where the paper has 1. The kernel is made of the mean of the block's input there,
        of the values' here, and leaves a class token out there.
    """

    family: ClassVar[str] = "linear"
    choices = Choices("identity", "none", "adds", "weights less their mean", "", "dynamic depthwise convolution")

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        feature_map: str = "identity",
        local: int = 3,
        value_dim: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        self.features = find_feature_map(feature_map)
        check_sizes(0, local=local)
        width = value_width(value_dim, head_dim)
        self.local = DynamicKernel(num_heads, width, local) if local else None

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, grid: Grid | None = None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        q, k, v = widen(query, key, value)
        q, k, v = self.features(q), kept(self.features(k), keep), per_head(v, self.num_heads)
        k, count, scale = per_head(k, self.num_heads), number(v, keep), self.head_dim**-0.5
        key_mean, value_mean = (x.sum(2, keepdim=True) / count for x in (k, v))
        read = q @ (k.transpose(2, 3) @ v)
        out = scale * read / count + (1 - scale * q @ key_mean.transpose(2, 3)) * value_mean
        if self.local is not None:
            one_each(query, key)
            out = out + self.local(v, value_mean, grid)
        mixed: Tensor = out.to(query.dtype)
        return mixed


class DynamicKernel(nn.Module):
    """A convolution of values with a kernel of each image and channel, made of the mean of its values.

    Args:
        num_heads: query heads.
        dim: the values' last dim.
        size: side of the kernel, odd.
    """

    def __init__(self, num_heads: int, dim: int, size: int) -> None:
        super().__init__()
        check_side(size)
        self.size = size
        self.hidden = HeadLinear(num_heads, dim, dim, bias=True)
        self.kernel = HeadLinear(num_heads, dim, dim * size**2, bias=True)

    def forward(self, value: Tensor, mean: Tensor, grid: Grid | None) -> Tensor:
        """Return sums over neighbours (B, H, N, D) of values (B, H, N, D) with their mean (B, H, 1, D)."""
        batch, heads, tokens, dim = value.shape
        if not value.numel():
            return value
        size, channels = self.size, batch * heads * dim
        kernel: Tensor = self.kernel(F.gelu(self.hidden(mean))).reshape(channels, 1, size, size)
        image = value.transpose(2, 3).reshape(1, channels, *sides(grid, tokens))
        out: Tensor = F.conv2d(image, kernel, padding=size // 2, groups=channels)
        return out.reshape(batch, heads, dim, tokens).transpose(2, 3)
