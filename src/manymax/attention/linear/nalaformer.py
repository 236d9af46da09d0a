"""NaLaFormer: linear attention in which a query's norm is the power of its direction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.parts import OutputGate
from manymax.attention.linear.turned import TurnedLinear
from manymax.attention.mechanism import Choices
from manymax.attention.options import check_positive

TINY = 1e-12  # added to a squared norm: a query of zeros has a direction of zeros, and no infinite gradient


class NaLaFormer(TurnedLinear):
    r"""Attend with powers of directions of queries, higher for longer ones, against cubes of keys, signs kept apart.

    $$o_i = \frac{\sum_j \phi_q(q_i) \cdot \phi_k(k_j)\, v_j}{\sum_j \phi_q(q_i) \cdot \phi_k(k_j) + \varepsilon n_i},
    \qquad \phi_q(q) = \Bigl[\frac{q_+}{\lVert q \rVert}; \frac{q_-}{\lVert q \rVert}\Bigr]^{p}, \quad
    \phi_k(k) = [k_+^3; k_-^3], \quad p = \lambda \Bigl(\frac{1}{2} + \tanh \lVert q \rVert\Bigr)$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, $x_+$ and $x_-$ are the positive part of x and of -x,
    powers go elementwise, $\lambda$ is 3, $n_i$ is the number of keys that query i sees and $\varepsilon$ is 1e-6. With
    `rope` the features above, and not those below, are turned by their places. A convolution of the values is added;
    then the output is normalised over all heads (LayerNorm) and gated by SiLU of a linear map of its value. The causal
    form takes sums over the tokens so far.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        power: $\lambda$.
        rope: whether features are turned by row and column, or by the place in a sequence.
        local: side of the convolution of values; 0 is none.
        gate: whether the output is normalised and gated.
        **options: `value_dim`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if the power is not positive, local is even, or an option's value is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("nalaformer", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 12, 16).unbind()
        >>> attend(query, key, value, grid=(3, 4)).shape
        torch.Size([1, 2, 12, 16])

    Source:
        Meng et al., 2025, NaLaFormer: Norm-Aware Linear Attention for Transformer Models, arXiv:2506.21137, as in the
        code released with its ICML 2026 version (Norm x Direction). The first version's map of directions by cosine and
        sine is not in that code and is not here. The gate reads the token's features there, its value here.
    """

    choices = Choices(
        "powers of directions, signs apart, turned by place",
        "none",
        "adds",
        "sum of weights",
        "2 Dk (Dv + 1) + 3 Dv",
        "depthwise convolution, LayerNorm, output gate",
    )
    eps = 1e-6

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        power: float = 3.0,
        rope: bool = True,
        local: int = 5,
        gate: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, rope=rope, local=local, **options)
        check_positive(power=power)
        self.power = power
        if gate:
            self.fixed_value_dim = self.value_dim
        self.norm = nn.LayerNorm(num_heads * self.value_dim) if gate else None
        self.gate = OutputGate(num_heads, self.value_dim) if gate else None

    def query_features(self, query: Tensor) -> Tensor:
        """Return powers of the positive and negative parts of directions (B, H, Nq, 2 D)."""
        norm = (query.square().sum(-1, keepdim=True) + TINY).sqrt()
        power = self.power * (0.5 + torch.tanh(norm))
        return signs_apart(query / norm) ** power

    def key_features(self, key: Tensor) -> Tensor:
        """Return the positive and negative parts of cubes (B, Hk, Nk, 2 D)."""
        return signs_apart(key**3)

    def combine(self, read: Tensor, mass: Tensor, mean: Tensor, count: Tensor) -> Tensor:
        """Return the sums of weighted values over the sums of weights."""
        del mean
        return read / (mass + self.eps * count)

    def finish(self, out: Tensor, value: Tensor) -> Tensor:
        """Return the output normalised over heads and gated."""
        if self.norm is None or self.gate is None:
            return out
        flat, (gain, bias) = out.transpose(1, 2).flatten(2), (x.to(out.dtype) for x in self.norm.parameters())
        normal = F.layer_norm(flat, flat.shape[2:], gain, bias, self.norm.eps)
        gated: Tensor = self.gate(normal.reshape(out.transpose(1, 2).shape).transpose(1, 2), value)
        return gated


def signs_apart(x: Tensor) -> Tensor:
    """Return the positive parts of x and of -x, one behind the other."""
    return torch.cat([F.relu(x), F.relu(-x)], -1)
