"""A mask that is a band of the scores, and padding: nothing of size queries x keys until somebody looks inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.attention.dense.visibility import make_band

# What tells nothing of the entries, so that they need not be filled in.
_WHOLE = {"as_subclass", "detach", "device", "dim", "dtype", "element_size", "is_complex", "is_cpu", "is_cuda"}
_WHOLE |= {"is_floating_point", "is_leaf", "is_meta", "layout", "ndim", "numel", "requires_grad", "shape", "size"}
_WHOLE |= {"stride"}


class BandMask(Tensor):
    """A bool mask (B, 1, Nq, Nk), True = may attend, that says causality and window by its class.

    Models hand a mask from the function that makes it to every layer. What it holds is padding alone, broadcast over
    the queries; `attention` reads the rest from the class, which survives what gradient checkpointing does to tensors,
    where an attribute would not. Whatever else a model does with it happens to the full mask.

    Attributes:
        left: how many keys to the left a query sees; None is all.
        right: how many to the right.
        align: where the queries stand, as in `attention`.
        padded: whether it hides anything else.
    """

    left: ClassVar[int | None]
    right: ClassVar[int | None]
    align: ClassVar[str]
    padded: ClassVar[bool]

    def padding(self) -> Tensor | None:
        """Return the padding as a plain tensor, or None."""
        return self.as_subclass(Tensor) if self.padded else None

    def full(self) -> Tensor:
        """Return the plain mask (B, 1, Nq, Nk)."""
        plain: Tensor = self.as_subclass(Tensor)
        queries, keys = plain.shape[-2:]
        band = make_band(
            queries, keys, (self.left, self.right), is_causal=False, align_last=self.align == "bottom-right"
        )
        near = band.block(slice(0, queries), slice(0, keys), plain.device)
        return plain.clone() if near is None else plain & near

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer questions about shape and memory; give anything else the full mask."""
        del types
        name = getattr(func, "__name__", "")
        name = getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
            if name not in _WHOLE:
                return func(*_filled(args), **_filled(kwargs or {}))
            found = func(*args, **(kwargs or {}))
            return torch.Tensor.as_subclass(found, type(args[0])) if name == "detach" else found


def _filled(x: Any) -> Any:
    """Put full masks in the place of bands, as deep as arguments go."""
    if isinstance(x, BandMask):
        return x.full()
    if isinstance(x, (list, tuple)):
        return type(x)(_filled(y) for y in x)
    return {key: _filled(y) for key, y in x.items()} if isinstance(x, dict) else x


@functools.cache
def _kind(left: int | None, right: int | None, align: str, padded: bool) -> type[BandMask]:
    return type("BandMask", (BandMask,), {"left": left, "right": right, "align": align, "padded": padded})


def band_mask(
    shape: tuple[int, int, int], left: int | None, right: int | None, align: str, keep: Tensor | None, device: Any
) -> BandMask:
    """Return the mask.

    Args:
        shape: batch, queries, keys.
        left: how many keys to the left a query sees; None is all.
        right: how many to the right.
        align: "top-left" or "bottom-right".
        keep: (B, Nk), False at padding; None if there is none.
        device: where it lies.
    """
    batch, queries, keys = shape
    held = torch.ones(1, 1, dtype=torch.bool, device=device) if keep is None else keep
    wide = held[:, None, None, :].expand(batch, 1, queries, keys)
    return wide.as_subclass(_kind(left, right, align, keep is not None))
