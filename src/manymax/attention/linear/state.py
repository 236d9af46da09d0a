"""What a recurrence keeps of the tokens so far, and the form of it that a step overwrites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manymax.attention.linear.streams import Streams
from manymax.attention.state import State
from manymax.kernels import linear

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class LinearState(State):
    """What a recurrence keeps.

    Attributes:
        memory: S, (B, H, Dk, Dv) in float32 at least; with a sum as normaliser one more column, the sum of keys.
        length: tokens so far, (B,).
        tail: the last inputs of the short convolution, (B, H, size - 1, Dq + Dk + Dv); None without one.
        shift: logarithms of what the rows of S are divided by, (B, H, Dk); None if they are not.
    """

    memory: Tensor
    length: Tensor
    tail: Tensor | None = None
    shift: Tensor | None = None

    def in_place(self) -> InPlaceState:
        """Return a state that takes over the tensors, and that a step of one token overwrites."""
        return InPlaceState(self.memory, self.length, self.tail, self.shift)


@dataclass(frozen=True)
class InPlaceState(LinearState):
    """A state that a step of one token moves on where it lies, and returns.

    Where a gradient may be asked for, or the native kernels do not serve, a step returns another one and leaves it as
    it is. What is taken from it, a part or a state elsewhere, has memory of its own.
    """

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the state with a function of each tensor, none of which shares the memory that steps overwrite."""
        return super().apply(lambda x: _apart(function(x), x))

    def read(self, streams: Streams) -> Tensor | None:
        """Move the memory on by one token and return the output, which the next step overwrites; None if it cannot."""
        if torch.compiler.is_compiling() or self.memory.requires_grad:
            return None
        out: Tensor | None = self.__dict__.get("_out")
        value = streams.value
        if out is None or out.dtype != value.dtype:
            out = value.new_empty(*self.memory.shape[:2], 1, value.shape[3])
            self.__dict__["_out"] = out  # not through the frozen class: it is no part of the state
        query, key, value, log_decay, beta = streams
        if beta is not None and beta.dtype != self.memory.dtype:
            beta = beta.to(self.memory.dtype)
        return out if linear.advance(query, key, value, log_decay, beta, self.memory, out) else None

    def after(self, out: Tensor, state: LinearState) -> tuple[Tensor, InPlaceState]:
        """Return an output that is nobody else's, and the state after its token: this one if it holds the memory."""
        if state.memory is not self.memory:
            return out, state.in_place()
        self.__dict__.update(length=state.length, tail=state.tail, shift=state.shift)
        return _apart(out, self.__dict__["_out"]), self

    def __getstate__(self) -> dict[str, Any]:
        """Return what is saved."""
        return self._fields()


def _apart(x: Tensor, other: Tensor) -> Tensor:
    """Return x, or a copy if it lies in the same memory as another tensor."""
    return x.clone() if x.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() else x
