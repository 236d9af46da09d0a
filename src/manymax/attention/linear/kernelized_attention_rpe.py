"""Kernelized attention with relative positions: random features, and a weight of each distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from manymax.attention.linear.features import orthogonal_normal, unit
from manymax.attention.linear.grid import kept, widen
from manymax.attention.linear.module import divide, with_ones
from manymax.attention.linear.parts import per_head
from manymax.attention.linear.recurrence import linear_attention
from manymax.attention.linear.toeplitz import LEAF, between_all, between_causal, near, pairs
from manymax.attention.mechanism import CausalMechanism, Choices
from manymax.attention.options import check_sizes
from manymax.attention.state import State, continues


@dataclass(frozen=True)
class WindowState(State):
    """What the causal form keeps, in float32 at least.

    Attributes:
        keys: features of the last W tokens, zeros where there was none, (B, H, W, m).
        values: their values and a one, (B, H, W, Dv + 1).
        memory: sum over all tokens before those of features times values and one, (B, H, m, Dv + 1).
    """

    keys: Tensor
    values: Tensor
    memory: Tensor


class KernelizedRPE(CausalMechanism):
    r"""Attend with random features of queries and keys and a learnt weight of their distance.

    $$o_i = \frac{\phi(q_i)^\top \sum_j e^{b_{j-i}} \phi(k_j) v_j^\top}{\phi(q_i)^\top \sum_j e^{b_{j-i}} \phi(k_j)},
    \qquad \phi(x) = \frac{e^{-\lVert x \rVert^2 / 2}}{\sqrt{m}} \bigl(e^{w_1 \cdot x}, \dots, e^{w_m \cdot x}\bigr)$$

    where $q_i$ and $k_j$ are queries and keys scaled to length 1 (NPRF), or divided by head_dim^(1/4) if `normalize`
    is False (PRF), $v_j$ are values, $w_1$ to $w_m$ normal rows that are drawn once, and $b_{j-i}$ is learnt for each
    head and distance, from 0. Both sums are products of a Toeplitz matrix with features times values, by FFT. In the
    causal form j ≤ i, and no rounding of the FFT reaches an earlier token. Up to 512 tokens all pairs are formed, which
    is faster, and with a W up to 512 the causal form takes pairs within W and a running sum beyond.

    The paper learns one b for each distance up to the training length; here all distances beyond W = `max_distance`
    share that of W, so that longer sequences have one and the state that `step` goes on from is finite: the last W
    tokens, and one sum over those before.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        num_features: m; None is head_dim.
        normalize: whether queries and keys are scaled to length 1.
        rpe: whether distances have weights; if not, b is 0 and there is no W.
        max_distance: W, to either side.
        orthogonal: whether the rows are orthogonal within blocks of head_dim.

    Raises:
        ValueError: if a number is below 1.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("kernelized-attention-rpe", head_dim=16, num_heads=2, max_distance=32)
        >>> query, key, value = torch.randn(3, 1, 2, 100, 16).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> out.shape, state.keys.shape
        (torch.Size([1, 2, 100, 16]), torch.Size([1, 2, 32, 16]))

    Source:
        Luo et al., 2021, Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding,
        arXiv:2106.12566; the features: Choromanski et al., 2020, Rethinking Attention with Performers,
        arXiv:2009.14794. There is no official code.
    """

    family: ClassVar[str] = "linear"
    choices = Choices(
        "random features of directions",
        "a learnt weight of each distance",
        "adds",
        "sum of weights",
        "W (m + Dv + 1) + m (Dv + 1)",
        "FFT over tokens",
    )
    projection: Tensor

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        num_features: int | None = None,
        normalize: bool = True,
        rpe: bool = True,
        max_distance: int = 256,
        orthogonal: bool = True,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        features = head_dim if num_features is None else num_features
        check_sizes(num_features=features, max_distance=max_distance)
        rows = orthogonal_normal(features, head_dim) if orthogonal else torch.randn(features, head_dim)
        self.register_buffer("projection", rows)
        self.normalize = normalize
        self.window = max_distance if rpe else 0
        self.bias = nn.Parameter(torch.zeros(num_heads, 2 * max_distance + 1)) if rpe else None

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, H, N, m) of x (B, H, N, D)."""
        x = unit(x) if self.normalize else x * self.head_dim**-0.25
        exponents: Tensor = x @ self.projection.to(x.dtype).T - 0.5 * x.square().sum(-1, keepdim=True)
        features: Tensor = exponents.exp() * len(self.projection) ** -0.5
        return features

    def weights(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """Return e^b (H, ...) of distances j - i."""
        if self.bias is None:
            return torch.ones(self.num_heads, *distances.shape, dtype=dtype, device=distances.device)
        return self.bias.to(dtype).exp()[:, distances.clamp(-self.window, self.window) + self.window]

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        (q, k, v), back = self._streams(query, key, value, keep)
        queries, keys = q.shape[2], k.shape[2]
        if self.bias is None or not queries or not keys:
            out = q @ (k.transpose(2, 3) @ v)
        else:
            distances = torch.arange(1 - queries, keys, device=q.device)
            weights = self.weights(distances, q.dtype)
            if max(queries, keys) <= LEAF:  # row i has the distances from -i on
                rows = weights.unfold(1, keys, 1).flip(1)
                out = pairs(q, k, v, rows)
            else:
                out = between_all(q, k, v, weights)
        return _in_order(divide(out), back).to(query.dtype)

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: WindowState | None
    ) -> tuple[Tensor, WindowState]:
        """Return the outputs and the state after the last token."""
        (q, k, v), back = self._streams(query, key, value, keep)
        old = self._empty(k, v) if state is None else state.computed_in(k.dtype)
        continues(old.values[..., 1:], v[..., 1:])  # without the ones
        keys, values = torch.cat([old.keys, k], 2), torch.cat([old.values, v], 2)
        count = torch.full((len(q),), q.shape[2], device=q.device) if keep is None else keep.sum(1)
        place = torch.arange(keys.shape[2], device=q.device)
        leaving = kept(keys, place < count[:, None])[:, :, : q.shape[2]]  # the window, for the last of the tokens
        out, memory = self._causal(q, keys, values, leaving, old.memory, started=state is not None)
        last = (count[:, None] + place[: self.window])[:, None, :, None]
        keys, values = (x.gather(2, last.expand(-1, x.shape[1], -1, x.shape[3])) for x in (keys, values))
        return _in_order(divide(out), back).to(query.dtype), WindowState(keys, values, memory)

    def _causal(
        self, q: Tensor, keys: Tensor, values: Tensor, leaving: Tensor, memory: Tensor, *, started: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the sums that outputs are made of, and the memory after the tokens that leave the window.

        All pairs are formed if there are few tokens, those within the window if that is narrow; else it is by FFT.
        """
        tokens, window = q.shape[2], self.window
        far = self.weights(torch.tensor(-window, device=q.device), q.dtype)[:, None, None] * q
        if window <= LEAF < tokens or not window:
            past = values[:, :, :tokens]
            out, memory = linear_attention(far, leaving, past, initial_state=memory)
            distances = -torch.arange(window, device=q.device)
            return (out + near(q, keys, values, self.weights(distances, q.dtype)) if window else out), memory
        before = window if started else 0
        seen = keys[:, :, window - before :], values[:, :, window - before :]
        if tokens <= LEAF:
            place = torch.arange(before + tokens, device=q.device)
            distances = place - place[before:, None]
            out = pairs(q, *seen, torch.where(distances <= 0, self.weights(distances, q.dtype), 0))
        else:
            distances = -torch.arange(before + tokens, device=q.device)
            padded = nn.functional.pad(q, (0, 0, before, 0))
            out = between_causal(padded, *seen, self.weights(distances, q.dtype))[:, :, before:]
        return out + far @ memory, memory + leaving.transpose(2, 3) @ values[:, :, :tokens]

    def _streams(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """Return features of queries and keys, values with ones, and how to put outputs back in order.

        Padding comes last, so that distances are those without it.
        """
        q, k, v = widen(query, key, value)
        q, k, v = self.features(q), kept(self.features(k), keep), with_ones(v)
        k, v = per_head(k, self.num_heads), per_head(v, self.num_heads)
        if keep is None:
            return (q, k, v), None
        order = torch.argsort(keep.to(torch.uint8), dim=1, descending=True, stable=True)
        k, v = _in_order(k, order), _in_order(v, order)
        if query.shape[2] != key.shape[2]:
            return (q, k, v), None
        return (_in_order(q, order), k, v), order.argsort(1)

    def _empty(self, k: Tensor, v: Tensor) -> WindowState:
        """Return the state of no tokens."""
        keys, values = (x.new_zeros(*x.shape[:2], self.window, x.shape[3]) for x in (k, v))
        return WindowState(keys, values, k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]))


def _in_order(x: Tensor, order: Tensor | None) -> Tensor:
    """Return the tokens of x (B, H, N, D) in another order, (B, N)."""
    return x if order is None else x.gather(2, order[:, None, :, None].expand_as(x))
