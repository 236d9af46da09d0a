"""What tiles compute, for a call or one of its blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Results:
    """Outputs, and what going backwards needs of each row; or, in the same places, their gradients.

    Attributes:
        out: (B, Hq, Nq, Dv).
        lse: (B, Hq, Nq, 1), the denominator's logarithm, -inf where the row is empty; ratio maps only, as the next two.
        shift: (B, Hq, Nq, 1), what the numerators are relative to.
        total: (B, Hq, Nq, 1), the denominator relative to the shift; 1 where the row is empty.
    """

    out: Tensor
    lse: Tensor | None = None
    shift: Tensor | None = None
    total: Tensor | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return all of them in a row."""
        return self.out, self.lse, self.shift, self.total

    def part(self, where: tuple[slice, ...]) -> Results:
        """Return the views of a block."""
        out, *per_row = (None if x is None else x[where] for x in self.tensors())
        assert out is not None
        return Results(out, *per_row)

    def fill(self, where: tuple[slice, ...], block: Results) -> None:
        """Copy a block's results to their place."""
        for whole, piece in zip(self.tensors(), block.tensors(), strict=True):
            if whole is not None and piece is not None:
                whole[where] = piece
