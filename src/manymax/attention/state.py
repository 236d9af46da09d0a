"""What a mechanism keeps of the tokens so far: a small dataclass of tensors, batch first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class State:
    """Tensors whose first dim is the batch. A field may also be None or another state.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("linear", head_dim=8, num_heads=2)
        >>> query, key, value = torch.randn(3, 4, 2, 16, 8).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> first, last = state[:1], state[[3]]
        >>> type(state).cat([first, last]).to(torch.float64).batch
        2
    """

    def __init_subclass__(cls) -> None:
        """Let `torch.load` read it without arbitrary code."""
        torch.serialization.add_safe_globals([cls])

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the state with a function of each tensor in the place of the tensor."""
        changes = {name: _applied(value, function) for name, value in self._fields().items()}
        return dataclasses.replace(self, **changes)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the state elsewhere or in another dtype, as `Tensor.to`; integers keep their dtype."""
        device = torch.empty(0, device=self.first.device).to(*args, **kwargs).device
        return self.apply(lambda x: x.to(*args, **kwargs) if x.is_floating_point() else x.to(device))

    def computed_in(self, dtype: torch.dtype) -> Self:
        """Return the state in the dtype that its mechanism computes in, by which it may not be any more after `to`."""
        return self if self.first.dtype == dtype else self.to(dtype)

    def in_place(self) -> State:
        """Return a state that `step` may overwrite; it takes over the tensors, and this one is not to be used any more.

        A loop that keeps the last state alone asks for it: there a step touches half of the memory. Mechanisms that
        make nothing of it return the state itself. `step` then returns the state to go on from, as ever.
        """
        return self

    def detach(self) -> Self:
        """Return the state without its history: the next tokens' gradients end here."""
        return self.apply(Tensor.detach)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Self:
        """Return the state of some sequences of the batch: a slice, their numbers, or a bool for each."""
        if isinstance(index, int):
            hint = f"[{index}:{index + 1}] keeps a batch of one"
            raise TypeError(f"index: expected a slice, a sequence or a tensor, got {index}; {hint}")
        where = torch.as_tensor(index) if isinstance(index, (list, tuple)) else index
        return self.apply(lambda x: x[where.to(x.device) if isinstance(where, Tensor) else where])

    @classmethod
    def cat(cls, states: Sequence[Self]) -> Self:
        """Return one state whose batch is that of all states, in order; those that keep tokens have as many each."""
        if not states:
            raise ValueError("states: expected at least one, got none")
        joined: dict[str, State | Tensor | None] = {}
        for name, first in states[0]._fields().items():
            parts = [state._fields()[name] for state in states]
            if isinstance(first, State):
                joined[name] = type(first).cat(parts)
            else:
                shapes = [None if x is None else tuple(x.shape[1:]) for x in parts]
                if len(set(shapes)) > 1:
                    got = " and ".join("None" if x is None else f"{tuple(x.shape)}" for x in parts)
                    raise ValueError(f"states: expected {name} of one shape but for the batch, got {got}")
                joined[name] = None if first is None else torch.cat(parts)
        return dataclasses.replace(states[0], **joined)

    @property
    def first(self) -> Tensor:
        """Return the first of the tensors."""
        return next(self.tensors())

    @property
    def batch(self) -> int:
        """Return how many sequences the state is of."""
        return int(self.first.shape[0])

    @property
    def nbytes(self) -> int:
        """Return how much memory the tensors take."""
        return sum(x.numel() * x.element_size() for x in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over the tensors."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, State):
                yield from value.tensors()
            elif value is not None:
                yield value

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def continues(held: Tensor, new: Tensor) -> None:
    """Refuse a state of tokens (B, H, N, D) whose sequences, heads or numbers are not those of the new ones."""
    if held.shape[:2] != new.shape[:2] or held.shape[3:] != new.shape[3:]:
        fits = f"(batch, heads, tokens, dim), any number of tokens, to go on with {tuple(new.shape)}"
        raise ValueError(f"state: expected that of {fits}, got {tuple(held.shape)}")


def _applied(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, State):
        return value.apply(function)
    return None if value is None else function(value)
