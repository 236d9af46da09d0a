"""Linear attention whose numerator alone knows the places: features are turned there, and not in sums of weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.attention.linear.grid import GridConvolution, OnGrid, kept, number, places, sides, turn, widen
from manymax.attention.linear.parts import per_head
from manymax.attention.linear.recurrence import check_options, linear_attention
from manymax.attention.mechanism import CausalMechanism, Grid, one_each
from manymax.attention.options import check_sizes, value_width
from manymax.attention.state import State, continues


@dataclass(frozen=True)
class TurnedState(State):
    """What a causal form keeps.

    Attributes:
        memory: sum of turned features of keys times values, (B, H, Dk, Dv), in float32 at least, as all sums.
        keys: sum of features of keys, not turned, (B, H, Dk).
        values: sum of values, (B, H, Dv).
        length: tokens so far, (B,).
        tail: the last values that the convolution still sees, (B, H, size // 2, Dv); None without one.
    """

    memory: Tensor
    keys: Tensor
    values: Tensor
    length: Tensor
    tail: Tensor | None = None


class TurnedLinear(OnGrid, CausalMechanism):
    """A mechanism of sums over keys, of which the one with values may have features turned by their places.

    A subclass says in `query_features` and `key_features` what meets, in `combine` what becomes of the sums, and in
    `finish` what becomes of the output with its convolution.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads. Keys and values may have fewer, if their number divides it.
        value_dim: the last dim of values; None is head_dim. Only parts with parameters of their own ask for it.
        rope: whether features are turned.
        local: side of the convolution of values that is added; 0 is none.
        chunk_size: tokens computed at once; None lets the form choose. It changes no result.
        backend: as in `linear_attention`.
    """

    family: ClassVar[str] = "linear"

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        value_dim: int | None = None,
        rope: bool = True,
        local: int = 5,
        chunk_size: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        self.value_dim = value_width(value_dim, head_dim)
        check_sizes(0, local=local)
        self.rope = rope
        self.options: dict[str, Any] = {"chunk_size": chunk_size, "backend": backend}
        self.local = GridConvolution(num_heads, self.value_dim, local) if local else None
        self.fixed_value_dim = self.value_dim if local else None
        check_options(chunk_size, backend)

    @abstractmethod
    def query_features(self, query: Tensor) -> Tensor:
        """Return the features of queries (B, H, Nq, Dk)."""

    @abstractmethod
    def key_features(self, key: Tensor) -> Tensor:
        """Return the features of keys (B, Hk, Nk, Dk)."""

    @abstractmethod
    def combine(self, read: Tensor, mass: Tensor, mean: Tensor, count: Tensor) -> Tensor:
        """Return the output.

        Args:
            read: sum over keys of products of features times values, (B, H, Nq, Dv).
            mass: sum over keys of products of features that are not turned, (B, H, Nq, 1).
            mean: of the values, (B, H, Nq or 1, Dv).
            count: the number of keys, at least 1, (B or 1, 1, Nq or 1, 1).
        """

    def finish(self, out: Tensor, value: Tensor) -> Tensor:
        """Return what becomes of the output; values are those of its tokens."""
        del value
        return out

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, grid: Grid | None = None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        if self.local is not None:
            one_each(query, key)
        q, k, v = widen(query, key, value)
        q, k, v = self.query_features(q), kept(self.key_features(k), keep), per_head(v, self.num_heads)
        k, count = per_head(k, self.num_heads), number(v, keep)
        mass = q @ k.sum(2)[..., None]
        if self.rope:
            axes = slice(int(sides(grid, q.shape[2])[0] == 1), None)  # a sequence has no rows
            q, k = turn(q, places(grid, q)[..., axes]), turn(k, places(grid, k)[..., axes])
        read = q @ (k.transpose(2, 3) @ v)
        out = self.combine(read, mass, v.sum(2, keepdim=True) / count, count)
        if self.local is not None:
            out = out + self.local(v, grid)
        return self.finish(out, v).to(query.dtype)

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: TurnedState | None
    ) -> tuple[Tensor, TurnedState]:
        """Return the outputs and the state after the last token."""
        q, k, v = widen(query, key, value)
        q, k, v = self.query_features(q), kept(self.key_features(k), keep), per_head(v, self.num_heads)
        k = per_head(k, self.num_heads)
        memory, keys, values, length, tail = _start(state, k, v)
        continues(values[:, :, None], v)
        count = _counts(v, keep, length)
        key_sums, value_sums = k.cumsum(2) + keys[:, :, None], v.cumsum(2) + values[:, :, None]
        mass, k_sum = (q * key_sums).sum(-1, keepdim=True), k.sum(2)
        if self.rope:
            where = (count - 1)[..., None]
            q, k = turn(q, where), turn(k, where)
        read, memory = linear_attention(q, k, v, initial_state=memory, **self.options)
        divisor = count.clamp(min=1).to(v.dtype)[:, None, :, None]
        out = self.combine(read, mass, value_sums / divisor, divisor)
        if self.local is not None:
            local, tail = self.local.causal(v, tail, keep)
            out = out + local
        length = length + (v.shape[2] if keep is None else keep.sum(1))
        state = TurnedState(memory, keys + k_sum, values + v.sum(2), length, tail)
        return self.finish(out, v).to(query.dtype), state


def _start(
    state: TurnedState | None, k: Tensor, v: Tensor
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor | None]:
    """Return a state's fields, zeros if there is none."""
    if state is not None:
        return state.memory, state.keys, state.values, state.length, state.tail
    keys, values = (x.new_zeros(*x.shape[:2], x.shape[3]) for x in (k, v))
    return None, keys, values, torch.zeros(len(k), dtype=torch.int64, device=k.device), None


def _counts(x: Tensor, keep: Tensor | None, length: Tensor) -> Tensor:
    """Return how many tokens there are up to each of x, itself included, (B, N)."""
    if keep is None:
        return length[:, None] + torch.arange(1, x.shape[2] + 1, device=x.device)
    return length[:, None] + keep.cumsum(1)
