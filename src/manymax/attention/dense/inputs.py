"""The tensors of a call."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """The tensors of a call, heads and batch first; or, in the same places, their gradients."""

    query: Tensor  # (B, Hq, Nq, D)
    key: Tensor  # (B, Hk, Nk, D); query head h reads key head h // (Hq // Hk)
    value: Tensor  # (B, Hk, Nk, Dv)
    mask: Tensor | None = None  # bool, broadcastable to (B, Hq, Nq, Nk)
    sinks: Tensor | None = None  # (Hq,)
    additions: tuple[Tensor, ...] = ()  # floating, broadcastable to (B, Hq, Nq, Nk): the float mask and the bias

    @property
    def groups(self) -> int:
        """Return how many query heads share a key head."""
        return self.query.shape[1] // max(self.key.shape[1], 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the scores' shape (B, Hq, Nq, Nk)."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return all of them in a row; `Inputs.of` takes them back."""
        return (self.query, self.key, self.value, self.mask, self.sinks, *self.additions)

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | None) -> Inputs:
        """Put the tensors that `tensors` returned back in their places."""
        mask, sinks, *additions = rest
        return cls(query, key, value, mask, sinks, tuple(x for x in additions if x is not None))
