"""Lightning attention: linear attention with a fixed decay, by tiles, without a denominator."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import HeadLinear, fixed_decay, widened
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices
from manymax.attention.options import check_sizes
from manymax.maps.rule import check_count


class LightningAttention2(LinearAttention):
    r"""Attend with products that fade with distance, by chunks, with no denominator and no scale.

    $$o_i = \sum_{j \le i} \lambda_h^{i-j} (q_i \cdot k_j) v_j, \qquad \lambda_h = e^{-s_h}$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, and $s_h$ is the slope of head h; a norm may follow.
    Within a chunk all pairs are formed, across chunks a state is carried: $S \leftarrow \lambda^C S +
    \sum_j \lambda^{C-j} k_j v_j^\top$ for chunks of C tokens.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: H, number of query heads.
        slopes: $s_h$, a number for each head, at least 0; None is ALiBi's, $2^{-8h/H}$ for h = 1 to H.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if there is not one slope of at least 0 for each head.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("lightning-attention-2", head_dim=16, num_heads=2, slopes=[0.5, 0.1])
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Qin et al., 2024, Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large Language
        Models, arXiv:2401.04658. There is no scale there; flash-linear-attention's own form divides by sqrt(head_dim).
    """

    choices = Choices("identity", "fixed, one a head", "adds", "none", "Dk Dv")
    rotary = True

    def __init__(
        self, *, head_dim: int, num_heads: int, slopes: list[float] | Tensor | None = None, **options: Any
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        given = alibi_slopes(num_heads) if slopes is None else torch.as_tensor(slopes, dtype=torch.float32)
        if given.shape != (num_heads,) or not bool(((given >= 0) & given.isfinite()).all()):
            raise ValueError(f"slopes: expected {num_heads} finite numbers of at least 0, got {slopes}")
        self.slopes = given.tolist()

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return the tokens as they are, and each head's decay."""
        del positions
        return Streams(query, key, value, fixed_decay([-slope for slope in self.slopes], value))


class LightningAttention(LightningAttention2):
    r"""Attend with products of SiLU features that fade with distance, normalised over all heads and gated.

    $$o_i = \mathrm{norm}\Bigl(\sum_{j \le i} \lambda_h^{i-j} (\phi(q_i) \cdot \phi(k_j)) \phi(v_j)\Bigr) \odot
    \sigma(W_2 W_1 v_i), \qquad \phi = \mathrm{SiLU}, \quad
    \lambda_h = \exp\bigl(-2^{-8h/H} (1 - \tfrac{l}{L-1} + 10^{-5})\bigr)$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, h counts the H heads from 1, l the L layers from 0,
    $\sigma$ is the logistic function, and norm divides what all heads of a token give by its root mean square. With one
    layer the fraction is 0. The paper computes the gate from the token's features, here it reads its value.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: H, number of query heads.
        layer: l, of the layer that this is.
        num_layers: L; None is 1, until a model says which of its layers this is.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if the layer is not one of num_layers.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("lightning-attention", head_dim=16, num_heads=2, layer=1, num_layers=4)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Qin et al., 2024, Various Lengths, Constant Speed: Efficient Language Modeling with Lightning Attention,
        arXiv:2405.17381 (TNL); the low-rank logistic gate and SiLU of values are those of the code released with it,
        whose norm has a mean and gains (LayerNorm) where the paper has SimpleRMSNorm, as here.
    """

    choices = Choices("SiLU", "fixed, one a head and layer", "adds", "RMS of all heads", "Dk Dv", "output gate")

    def __init__(
        self, *, head_dim: int, num_heads: int, layer: int = 0, num_layers: int | None = None, **options: Any
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        self.is_placed = num_layers is not None
        self.slopes = layer_slopes(num_heads, layer, 1 if num_layers is None else num_layers)
        self.squeeze = HeadLinear(num_heads, self.value_dim, max(1, self.value_dim // 4))
        self.open = HeadLinear(num_heads, max(1, self.value_dim // 4), self.value_dim)

    def at_layer(self, layer: int, num_layers: int) -> None:
        """Take a place in a model, unless it was given one when it was made."""
        if not self.is_placed:
            self.slopes = layer_slopes(self.num_heads, layer, num_layers)

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return SiLU of the tokens, and each head's decay."""
        return super().streams(F.silu(query), F.silu(key), F.silu(value), positions)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output normalised over heads and gated."""
        del streams
        return simple_rms_norm(out) * torch.sigmoid(self.open(self.squeeze(value)))


def alibi_slopes(num_heads: int) -> Tensor:
    """Return 2^(-8h/H) for h = 1 to H (Press et al., 2021, arXiv:2108.12409)."""
    return 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)


def layer_slopes(num_heads: int, layer: int, num_layers: int) -> list[float]:
    """Return ALiBi's slopes, smaller from layer to layer: the last one forgets almost nothing."""
    check_layer(layer, num_layers)
    slopes: list[float] = (alibi_slopes(num_heads) * (1 - layer / max(num_layers - 1, 1) + 1e-5)).tolist()
    return slopes


def check_layer(layer: int, num_layers: int) -> None:
    """Refuse a layer that is none of so many."""
    check_sizes(num_layers=num_layers)
    check_count("layer", layer, lambda n: 0 <= n < num_layers, f"0 to {num_layers - 1}, as num_layers says")


def simple_rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x (B, H, N, D) over the root mean square of each token's heads and channels together, without gains."""
    wide = widened(x)
    return (wide * torch.rsqrt(wide.square().mean((1, 3), keepdim=True) + eps)).to(x.dtype)
