"""TransNormerLLM's attention: fixed decay, and in the first layer positions as learnt rotations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.lightning import LightningAttention2, check_layer, layer_slopes, simple_rms_norm
from manymax.attention.linear.parts import HeadLinear, per_head, widened
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices


class TransNormerLLM(LightningAttention2):
    r"""Attend with products of SiLU features that fade and turn with distance, normalised over all heads and gated.

    $$o_i = \mathrm{norm}\Bigl(\sum_{j \le i} \lambda_h^{i-j}\, \phi(q_i)^\top R(\theta, i-j)\, \phi(k_j)\, v_j\Bigr)
    \odot W v_i, \qquad \phi = \mathrm{SiLU}, \quad \lambda_h = \exp\bigl(-\tfrac{8h}{H}(1 - \tfrac{l}{L})\bigr)$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, $R(\theta, t)$ = diag(cos(θ t)) with a learnt θ for each
    channel is in the first layer alone (LRPE-d), h counts the H heads from 1, l the L layers from 0, and norm divides
    what all heads of a token give by its root mean square (SimpleRMSNorm). $W v_i$ stands for the gate, which the paper
    computes from the token's features, as `manymax.models.transnormer_llm.TransNormerLLM` does.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: H, number of query heads.
        layer: l, of the layer that this is.
        num_layers: L; None is 1, until a model says which of its layers this is.
        lrpe: whether channels turn with position; None is in the first layer alone.
        decay: "paper" is the formula above; "code" is the released code's,
            $\exp(-2^{-8h/H}(1 - \tfrac{l}{L-1} + 10^{-5}))$, and its angles start at $10000^{-2i/(Hd)}$ with i counting
            the channels of all heads, where the paper's start at $10000^{-2i/d}$ in each head.
        gate: whether $W v_i$ opens the output; False leaves the gate to a model, which has the token's features.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if the layer is not one of num_layers, or decay is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("transnormer-llm", head_dim=16, num_heads=2, layer=0, num_layers=4)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Qin et al., 2023, TransNormerLLM: A Faster and Better Large Language Model with Improved TransNormer,
        arXiv:2307.14995 (in its first version: Scaling TransNormer to 175 Billion Parameters); neither gate nor values
        have an activation there.
    """

    choices = Choices(
        "SiLU",
        "fixed, one a head and layer",
        "adds",
        "RMS of all heads",
        "2 Dk Dv, or Dk Dv after layer 0",
        "learnt rotation, output gate",
    )
    rotary = False

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        layer: int = 0,
        num_layers: int | None = None,
        lrpe: bool | None = None,
        decay: str = "paper",
        gate: bool = True,
        **options: Any,
    ) -> None:
        if decay not in {"paper", "code"}:
            raise ValueError(f"decay: expected 'paper' or 'code', got {decay!r}")
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        self.is_placed, self.decay = num_layers is not None, decay
        self.slopes = self._slopes(layer, 1 if num_layers is None else num_layers)
        turns = layer == 0 if lrpe is None else lrpe
        self.theta = nn.Parameter(_angles(num_heads, head_dim, decay)) if turns else None
        self.chosen = lrpe is not None
        self.open = HeadLinear(num_heads, self.value_dim, self.value_dim) if gate else None

    def at_layer(self, layer: int, num_layers: int) -> None:
        """Take a place in a model, unless it was given one when it was made."""
        if not self.is_placed:
            self.slopes = self._slopes(layer, num_layers)
            if layer and not self.chosen:
                self.theta = None

    def _slopes(self, layer: int, num_layers: int) -> list[float]:
        if self.decay == "code":
            return layer_slopes(self.num_heads, layer, num_layers)
        check_layer(layer, num_layers)
        return [8 * h / self.num_heads * (1 - layer / num_layers) for h in range(1, self.num_heads + 1)]

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return SiLU of queries and keys, turned by their positions, and each head's decay."""
        query, key = F.silu(query), F.silu(key)
        if self.theta is not None:
            # In bfloat16, which holds whole numbers up to 256, angles of later places would be off by radians.
            theta = widened(self.theta)
            theta = theta.to(torch.promote_types(theta.dtype, query.dtype))
            angles = theta[:, None] * positions[:, None, :, None]
            query, key = _turn(query, angles), _turn(per_head(key, self.num_heads), angles)
            value = per_head(value, self.num_heads)
        return super().streams(query, key, value, positions)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output normalised over heads and gated."""
        del streams
        normal = simple_rms_norm(out)
        return normal if self.open is None else normal * self.open(value)


def _angles(num_heads: int, head_dim: int, of: str) -> Tensor:
    """Return each channel's angle a token, (H, D)."""
    if of == "code":
        count = num_heads * head_dim
        return (10000.0 ** (-2 * torch.arange(count) / count)).reshape(num_heads, head_dim)
    return (10000.0 ** (-2 * torch.arange(head_dim) / head_dim)).repeat(num_heads, 1)


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    """Return [x cos, x sin]: a product of two such is x y cos of the difference of angles."""
    return torch.cat([x * angles.cos(), x * angles.sin()], -1).to(x.dtype)
