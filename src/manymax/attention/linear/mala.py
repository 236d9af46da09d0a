"""MALA: linear attention whose weights still know how large a query is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.linear.parts import HeadLinear
from manymax.attention.linear.turned import TurnedLinear
from manymax.attention.mechanism import Choices


class MALA(TurnedLinear):
    r"""Attend with products of features that are scaled and shifted, so that large queries give uneven weights.

    $$a_{ij} = \Bigl(1 + \frac{1}{z_i}\Bigr) s_i\, \phi(q_i) \cdot \phi(k_j) - \frac{z_i}{n_i}, \qquad
    z_i = s_i\, \phi(q_i) \cdot \sum_j \phi(k_j), \qquad o_i = \sum_j a_{ij} v_j$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, $\phi$ is elu(x) + 1, $n_i$ the number of keys that query
    i sees, and $s_i = 1 / (\sqrt{d}\, n_i)$ with d = head_dim, or 1 if `mean` is False. The weights sum to 1 and may be
    negative. With `rope` the features in the sum with values are turned by their places, and the weights' sum is then
    1 only nearly. A convolution of the values is added, and the output is multiplied by a linear map of its value. The
    causal form takes sums over the tokens so far.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        mean: whether sums over keys are means divided by $\sqrt{d}$, as in the code that the authors trained, or plain,
            as in the paper.
        rope: whether features are turned by row and column, or by the place in a sequence.
        local: side of the convolution of values; 0 is none.
        gate: whether the output is multiplied.
        **options: `value_dim`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if local is even, or an option's value is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("mala", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 12, 16).unbind()
        >>> attend(query, key, value, grid=(3, 4)).shape
        torch.Size([1, 2, 12, 16])

    Source:
        Fan et al., 2025, Rectifying Magnitude Neglect in Linear Attention, arXiv:2507.00698. The code adds 1e-6 to
        $z_i$ below the fraction; here weights are 0 where $z_i$ is. The gate reads the token's features there, its
        value here.
    """

    choices = Choices(
        "elu(x) + 1, turned by place",
        "none",
        "adds",
        "weights sum to 1 by a factor and a shift",
        "Dk (Dv + 1) + 3 Dv",
        "depthwise convolution, output gate",
    )

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        mean: bool = True,
        rope: bool = True,
        local: int = 5,
        gate: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, rope=rope, local=local, **options)
        self.mean = mean
        self.gate = HeadLinear(num_heads, self.value_dim, self.value_dim, bias=True) if gate else None

    def query_features(self, query: Tensor) -> Tensor:
        """Return elu(q) + 1."""
        return F.elu(query) + 1

    def key_features(self, key: Tensor) -> Tensor:
        """Return elu(k) + 1."""
        return F.elu(key) + 1

    def combine(self, read: Tensor, mass: Tensor, mean: Tensor, count: Tensor) -> Tensor:
        """Return the sums of weighted values."""
        scale = self.head_dim**-0.5 / count if self.mean else torch.ones_like(count)
        z = scale * mass
        factor = torch.where(z == 0, 0, 1 + 1 / torch.where(z == 0, 1, z))
        return factor * scale * read - z * mean

    def finish(self, out: Tensor, value: Tensor) -> Tensor:
        """Return the output times a linear map of the values."""
        return out if self.gate is None else out * self.gate(value)
