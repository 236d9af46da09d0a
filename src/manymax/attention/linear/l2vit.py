"""L2ViT's global attention: linear attention with ReLU, a bounded denominator and convolutions that concentrate it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.grid import GridConvolution, OnGrid
from manymax.attention.linear.module import LinearAttention, with_ones
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices, Grid, one_each
from manymax.attention.options import check_sizes
from manymax.maps.rule import check_option


class L2ViT(OnGrid, LinearAttention):
    r"""Attend with products of ReLU features over their sum, which is bounded from below.

    $$o_i = t_h \frac{\phi(q_i)^\top \sum_j \phi(k_j) v_j^\top}{\max(\phi(q_i) \cdot \sum_j \phi(k_j),\; c)}, \qquad
    \phi = \mathrm{ReLU}$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, $t_h$ is a learnt temperature of head h, which starts at
    head_dim^(-1/2), and c bounds the denominator, so that the weights of a query sum to less than $t_h$ if it matches
    little. With `local` the local concentration module follows: out + conv(BN(GELU(conv(LN(out))))) with depthwise
    convolutions over the grid. The paper alternates this attention with softmax in windows, which is a model's part;
    its attention is for images, and the causal form, with sums over j ≤ i, is the same rule for sequences.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        least: c; 0 is plain division.
        local: side of the module's convolutions, 7 in the paper; 0 leaves the module out. It is off here unless asked
            for: its batch norm makes sequences of a batch depend on each other, and it sees later tokens.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if least is negative or local is even, or if a causal form with the module is asked for.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("l2vit", head_dim=16, num_heads=2, local=7)
        >>> query, key, value = torch.randn(3, 1, 2, 12, 16).unbind()
        >>> attend(query, key, value, grid=(3, 4)).shape
        torch.Size([1, 2, 12, 16])

    Source:
        Zheng, 2025, The Linear Attention Resurrection in Vision Transformer, arXiv:2501.16182. The bound 100 is that of
        the code; in the code the module follows the block's attention and its residual, as in
        `manymax.models.l2vit.L2ViT`, here the attention alone.
    """

    choices = Choices(
        "ReLU", "none", "adds", "sum of weights, at least 100", "Dk (Dv + 1)", "temperature, depthwise convolutions"
    )
    rotary = True

    def __init__(self, *, head_dim: int, num_heads: int, least: float = 100.0, local: int = 0, **options: Any) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        check_sizes(0, local=local)
        check_option("least", least, lambda x: x >= 0, "at least 0")
        self.least = least
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), head_dim**-0.5))
        if local:
            self.fixed_value_dim = self.value_dim
        self.concentrate = LocalConcentration(num_heads, self.value_dim, local) if local else None

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return ReLU features, and values with ones, whose output is the denominator."""
        del positions
        return Streams(F.relu(query), F.relu(key), with_ones(value))

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the sums over the denominators, times the temperature."""
        del streams, value
        read, mass = out[..., :-1], out[..., -1:].clamp(min=self.least)
        return self.temperature.to(out.dtype) * torch.where(mass == 0, 0, read / torch.where(mass == 0, 1, mass))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, grid: Grid | None = None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        out = super().mix(query, key, value, keep)
        if self.concentrate is None:
            return out
        one_each(query, key)
        concentrated: Tensor = self.concentrate(out, keep, grid)
        return concentrated

    def scan(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """Return the outputs and the state after the last token."""
        if self.concentrate is not None:
            raise ValueError("local: expected 0 in the causal form, since the convolutions see later tokens")
        return super().scan(query, key, value, keep, state)


class LocalConcentration(nn.Module):
    r"""Two depthwise convolutions that gather what linear attention spreads: x + conv(BN(GELU(conv(LN(x))))).

    The norms are over the channels of all heads, and over all tokens that are no padding.

    Args:
        num_heads: heads of x.
        dim: channels of a head.
        size: side of the convolutions.
    """

    def __init__(self, num_heads: int, dim: int, size: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(num_heads * dim)
        self.first = GridConvolution(num_heads, dim, size)
        self.batch_norm = nn.BatchNorm1d(num_heads * dim)
        self.second = GridConvolution(num_heads, dim, size)

    def forward(self, x: Tensor, keep: Tensor | None, grid: Grid | None) -> Tensor:
        """Return x (B, H, N, D) with what the convolutions add; padding, where keep (B, N) is False, is zero."""
        keep = torch.ones_like(x[:, 0, :, 0], dtype=torch.bool) if keep is None else keep
        inner = self._on_tokens(self.layer_norm, x, keep)
        inner = self._on_tokens(self.batch_norm, F.gelu(self.first(inner, grid)), keep)
        return torch.where(keep[:, None, :, None], x + self.second(inner, grid), 0)

    @staticmethod
    def _on_tokens(norm: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
        """Return a norm over heads' channels of the tokens that are no padding, zero elsewhere."""
        flat = x.transpose(1, 2).flatten(2)
        out = torch.zeros_like(flat)
        out[keep] = norm(flat[keep])
        return out.reshape(x.transpose(1, 2).shape).transpose(1, 2)
