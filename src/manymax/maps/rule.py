"""What a map says about itself, and the one driver that turns that into weights for any shape, dim, dtype and mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

Kind = Literal["pointwise", "ratio", "threshold", "coupled"]


@dataclass(frozen=True)
class Rule:
    """A map with its options chosen: scores along the last dim become weights.

    A rule knows the formula and nothing of dims, dtypes or masks; `apply` takes care of those. Attention backends read
    `kind` and the parts that `Pointwise` and `Ratio` add to decide how far a row can be cut into tiles.

    Attributes:
        temperature: every score is divided by it first.
    """

    kind: ClassVar[Kind]
    sums_to_one: ClassVar[bool]

    temperature: float | Tensor = 1.0

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive; a tensor is trusted, since reading it would break compilation."""
        if not isinstance(self.temperature, Tensor) and not self.temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature!r}")

    def weights(self, scores: Tensor, visible: Tensor) -> Tensor:
        """Turn scores (..., n) into weights (..., n).

        Args:
            scores: float32 or float64, already divided by the temperature, 0 where not visible.
            visible: bool, same shape; what an entry that is not visible gets does not matter.
        """
        raise NotImplementedError


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to accumulate in: float64 stays, everything shorter becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def visible_entries(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return where a score takes part: unmasked, and not -inf, which every map reads as "not there"."""
    visible = x != -torch.inf
    if mask is None:
        return visible
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: expected dtype torch.bool (True = keep), got {mask.dtype}")
    try:
        return visible & mask.expand(x.shape)
    except RuntimeError as error:
        raise ValueError(
            f"mask: expected a shape that broadcasts to {tuple(x.shape)}, got {tuple(mask.shape)}"
        ) from error


def apply(rule: Rule, x: Tensor, dim: int = -1, mask: Tensor | None = None, *, hidden: float = 0.0) -> Tensor:
    """Return the rule's weights of x along dim; entries that are not visible get `hidden` and a zero gradient."""
    if not x.is_floating_point():
        raise ValueError(f"x: expected a floating-point tensor, got {x.dtype}")
    visible = visible_entries(x, mask)
    if x.numel() == 0:
        return x.clone()
    # A masked score may be NaN or infinite: it is replaced before the formula sees it, since 0 * NaN is NaN backwards.
    scores = torch.where(visible, x, 0).to(compute_dtype(x.dtype)) / rule.temperature
    if x.dim() == 0:
        scores, visible = scores.unsqueeze(0), visible.unsqueeze(0)
    weights = rule.weights(scores.movedim(dim, -1), visible.movedim(dim, -1)).movedim(-1, dim)
    return torch.where(visible, weights, hidden).to(x.dtype).reshape(x.shape)
