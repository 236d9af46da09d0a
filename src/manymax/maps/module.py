"""Maps as modules: what `create_map` returns."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from torch import Tensor, nn

from manymax.maps.registry import MAPS
from manymax.maps.rule import Kind, Rule, apply


def closest(name: str, known: list[str]) -> str:
    """Return ", did you mean ...?" for a misspelt name, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class Map(nn.Module):
    """A map with its options chosen; options given as `nn.Parameter` are learnt, other tensors become buffers.

    Attributes:
        name: the map's name in `list_maps()`.
    """

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__()
        if name not in MAPS:
            raise ValueError(f"name: expected one of {', '.join(MAPS)}, got {name!r}{closest(name, list(MAPS))}")
        self.name = name
        self._options = [field.name for field in dataclasses.fields(MAPS[name].rule)]
        for key, value in params.items():
            if key not in self._options:
                raise TypeError(
                    f"{name} has no option {key!r}; it has {', '.join(self._options)}{closest(key, self._options)}"
                )
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(key, value)
            else:
                setattr(self, key, value)
        self._given = list(params)
        self.rule()

    def rule(self) -> Rule:
        """Return the rule with the options' present values; it checks them."""
        return MAPS[self.name].rule(**{key: getattr(self, key) for key in self._given})

    @property
    def kind(self) -> Kind:
        """Return "pointwise", "ratio", "threshold" or "coupled"."""
        return MAPS[self.name].rule.kind

    @property
    def sums_to_one(self) -> bool:
        """Return whether the weights of a row with something to attend sum to 1."""
        return self.rule().sums_to_one

    def forward(self, x: Tensor, dim: int = -1, *, mask: Tensor | None = None) -> Tensor:
        """Return the weights of x along dim; mask is bool, broadcastable to x, True = keep."""
        return apply(self.rule(), x, dim, mask)

    def extra_repr(self) -> str:
        """Show the name and the options that are not learnt."""
        shown = [f"{key}={getattr(self, key)!r}" for key in self._given if not isinstance(getattr(self, key), Tensor)]
        return ", ".join([self.name, *shown])


def list_maps() -> list[str]:
    """Return the names of all maps.

    Example:
        >>> import manymax as mm
        >>> "softmax" in mm.list_maps()
        True
    """
    return sorted(MAPS)


def create_map(name: str, **params: Any) -> Map:
    """Create a map by name as a module.

    Args:
        name: one of `list_maps()`.
        **params: the map's own options, as in the function of the same name. An `nn.Parameter` is learnt.

    Returns:
        A module with `.kind`, `.sums_to_one` and `forward(x, dim=-1, *, mask=None)`.

    Raises:
        TypeError: if the map has no such option.
        ValueError: if the name is unknown or an option's value is out of range.

    Example:
        >>> import torch, manymax as mm
        >>> mm.create_map("softmax", temperature=2.0)
        Map(softmax, temperature=2.0)
        >>> sharpness = torch.nn.Parameter(torch.ones(()))
        >>> [name for name, _ in mm.create_map("softmax", temperature=sharpness).named_parameters()]
        ['temperature']
    """
    return Map(name, **params)
