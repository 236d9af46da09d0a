"""Mechanisms that are a recurrence with parts around it: what each one chooses is in its own file."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.parts import ShortConvolution, per_head
from manymax.attention.linear.recurrence import check_options, linear_attention
from manymax.attention.linear.state import InPlaceState, LinearState
from manymax.attention.linear.streams import Streams, without_padding
from manymax.attention.mechanism import CausalMechanism, both_ways, one_each
from manymax.attention.options import check_sizes, value_width


class LinearAttention(CausalMechanism):
    """A mechanism whose state is one matrix a head.

    A subclass says in `streams` what the recurrence reads, and in `finish` what becomes of its output. Without a causal
    mask a rule that only adds, with neither decay nor convolution, reads the sum over all tokens, and queries may be
    others than the keys' tokens; any other rule takes the mean of two scans, one in each direction.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads. Keys and values may have fewer, if their number divides it.
        value_dim: the last dim of values; None is head_dim. Only parts with parameters of their own ask for it.
        conv_size: tokens that a causal convolution of queries, keys and values sees; 0 is none.
        chunk_size: tokens computed at once; None lets the form choose. It changes no result.
        backend: "auto", "recurrent", "chunked", "quadratic" or "cpu", as in `linear_attention`.
    """

    family: ClassVar[str] = "linear"
    normalise: ClassVar[bool] = False  # whether outputs are divided by the same sum with ones as values

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        value_dim: int | None = None,
        conv_size: int = 0,
        chunk_size: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        self.value_dim = value_width(value_dim, head_dim)
        self.options: dict[str, Any] = {"chunk_size": chunk_size, "backend": backend}
        self.conv: nn.Module | None = None
        check_sizes(0, conv_size=conv_size)
        if conv_size:
            self.fixed_value_dim = self.value_dim
            self.conv = ShortConvolution(num_heads, 2 * head_dim + self.value_dim, conv_size)
        check_options(chunk_size, backend)

    @abstractmethod
    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return what the recurrence reads.

        Args:
            query: (B, H, N, D).
            key: (B, Hk, N, D), or with a convolution (B, H, N, D).
            value: (B, Hk, N, Dv), or with a convolution (B, H, N, Dv).
            positions: (B, N), how many tokens came before each; padding does not count.
        """

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return what becomes of the recurrence's output; value is as the caller gave it."""
        del streams, value
        return out

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: LinearState | None
    ) -> tuple[Tensor, LinearState]:
        """Return the outputs and the state after the last token."""
        streams, length, tail, shift = self.prepared(query, key, value, keep, state)
        moving = state if isinstance(state, InPlaceState) else None
        out, memory = self._read(streams, None if state is None else state.memory, moving)
        out, state = self.finish(out, streams, value), LinearState(memory, length, tail, shift)
        return (out, state) if moving is None else moving.after(out, state)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        if self.conv is not None:
            return both_ways(self.scan, (query, key, value), keep)
        streams, _, _, _ = self.prepared(query, key, value, keep, None, whole=True)
        if streams.log_decay is not None or streams.beta is not None:
            return both_ways(self.scan, (query, key, value), keep)
        return self.finish(self._read_all(streams), streams, value)

    def prepared(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keep: Tensor | None,
        state: Any | None,
        *,
        whole: bool = False,
    ) -> tuple[Streams, Tensor, Tensor | None, Tensor | None]:
        """Return what the recurrence reads of tokens, zeros at padding, and the next state's length, tail and shift.

        Args:
            query: (B, num_heads, N, head_dim).
            key: (B, Hk, N, head_dim).
            value: (B, Hk, N, Dv).
            keep: (B, N), False at padding; None is none.
            state: that of the tokens before, of which length and tail are read; None if there are none.
            whole: whether queries see all keys.
        """
        start, tail = (None, None) if state is None else (state.length, state.tail)
        positions, length = _positions(key, keep, start)
        q, k, v, tail = self._convolve(query, key, value, keep, tail)
        streams, shift = self.shifted(q, k, v, positions, keep, state, whole=whole)
        return without_padding(streams, keep), length, tail, shift

    def shifted(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        positions: Tensor,
        keep: Tensor | None,
        state: Any | None,
        *,
        whole: bool,
    ) -> tuple[Streams, Tensor | None]:
        """Return the streams, and the shift of the next state if rows of it are divided so as not to underflow."""
        del keep, state, whole
        return self.streams(query, key, value, positions), None

    def _read(self, streams: Streams, memory: Tensor | None, moving: InPlaceState | None) -> tuple[Tensor, Tensor]:
        """Return the outputs of the recurrence, normalised, and its state: that of `moving` if it could be moved on."""
        if self.normalise:
            streams = streams._replace(value=with_ones(streams.value))
        out = None
        if moving is not None and self.options["backend"] in {"auto", "cpu"}:
            out, memory = moving.read(streams), moving.memory
        if out is None:
            query, key, value, log_decay, beta = streams
            out, memory = linear_attention(
                query, key, value, log_decay=log_decay, beta=beta, initial_state=memory, **self.options
            )
        assert memory is not None
        return divide(out) if self.normalise else out, memory

    def _read_all(self, streams: Streams) -> Tensor:
        """Return the outputs of a sum over all tokens, normalised."""
        query, key = streams.query, per_head(streams.key, self.num_heads)
        value = per_head(streams.value, self.num_heads)
        value = with_ones(value) if self.normalise else value
        out = query @ (key.transpose(2, 3) @ value)
        return divide(out) if self.normalise else out

    def _convolve(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, tail: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        if self.conv is None:
            return query, key, value, None
        one_each(query, key)
        joined = torch.cat([query, per_head(key, self.num_heads), per_head(value, self.num_heads)], -1)
        if keep is not None:
            joined = torch.where(keep[:, None, :, None], joined, 0)
        out, tail = self.conv(joined, tail, keep)
        q, k, v = out.split([self.head_dim, self.head_dim, self.value_dim], -1)
        return q, k, v, tail


def with_ones(value: Tensor) -> Tensor:
    """Return values with a column of ones: what the recurrence makes of it is the sum of the weights."""
    return F.pad(value, (0, 1), value=1.0)


def divide(out: Tensor) -> Tensor:
    """Return all columns divided by the last; 0 where that is 0, since nothing was seen."""
    sums = out[..., -1:]
    return out[..., :-1] / torch.where(sums == 0, torch.inf, sums)


def _positions(x: Tensor, keep: Tensor | None, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return each token's position, (B, N), and how many tokens there are after the last, (B,)."""
    batch, tokens = x.shape[0], x.shape[2]
    if start is None:
        start = torch.zeros(batch, dtype=torch.int64, device=x.device)
    if keep is None:
        places = start[:, None]
        return places if tokens == 1 else places + torch.arange(tokens, device=x.device), start + tokens
    count = keep.cumsum(1)
    return start[:, None] + (count - 1).clamp(min=0), start + keep.sum(1)
