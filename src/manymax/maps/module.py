"""Maps as modules: what `create_map` returns."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from torch import Tensor, nn

from manymax._names import closest
from manymax.maps.registry import COMPANIONS, MAPS
from manymax.maps.rule import Kind, Rule, apply

GIVEN_TO_FORWARD = {"x", "dim", "mask", "out"}


def _fields(rule: type[Rule]) -> list[str]:
    return [field.name for field in dataclasses.fields(rule)]


class Map(nn.Module):
    """A map with its options chosen; options given as `nn.Parameter` are learnt, other tensors become buffers.

    Attributes:
        name: the map's name in `list_maps()`.
    """

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__()
        self.name = name
        self._set_options(params, _fields(MAPS[name].rule))
        self.rule()

    def _set_options(self, params: dict[str, Any], known: list[str]) -> None:
        for key, value in params.items():
            if key not in known:
                raise TypeError(f"{self.name} has no option {key!r}; it has {', '.join(known)}{closest(key, known)}")
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(key, value)
            else:
                setattr(self, key, value)
        self._given = list(params)

    def options(self) -> dict[str, Any]:
        """Return the options that were given, with their present values."""
        return {key: getattr(self, key) for key in self._given}

    def rule(self) -> Rule:
        """Return the rule with the options' present values; it checks them."""
        return MAPS[self.name].rule(**self.options())

    @property
    def kind(self) -> Kind:
        """Return "pointwise", "ratio", "threshold" or "coupled"."""
        return self.rule().kind

    @property
    def sums_to_one(self) -> bool:
        """Return whether the weights of a row with something to attend sum to 1."""
        return self.rule().sums_to_one

    def forward(self, x: Tensor, dim: int = -1, *, mask: Tensor | None = None) -> Tensor:
        """Return the weights of x along dim; mask is bool, broadcastable to x, True = keep."""
        return apply(self.rule(), x, dim, mask)

    def extra_repr(self) -> str:
        """Show the name and the options that are not learnt."""
        shown = [f"{key}={value!r}" for key, value in self.options().items() if not isinstance(value, Tensor)]
        return ", ".join([self.name, *shown])


class Companion(Map):
    """A function beside a map, such as its logarithm, with its options chosen. It returns no weights."""

    def __init__(self, name: str, **params: Any) -> None:
        nn.Module.__init__(self)
        self.name = name
        entry, function = COMPANIONS[name]
        self._set_options(
            params, [key for key in inspect.signature(function).parameters if key not in GIVEN_TO_FORWARD]
        )
        entry.rule(**{key: value for key, value in params.items() if key in _fields(entry.rule)})

    def rule(self) -> Rule:
        """Refuse: there is nothing here that attention could weigh values with."""
        raise ValueError(f"map: expected one that returns weights, got {self.name!r}")

    @property
    def kind(self) -> Kind:
        """Return the map's kind."""
        return COMPANIONS[self.name][0].rule.kind

    @property
    def sums_to_one(self) -> bool:
        """Return False."""
        return False

    def forward(self, x: Tensor, dim: int | tuple[int, ...] = -1, *, mask: Tensor | None = None) -> Tensor:
        """Return the function of x along dim; mask is bool, broadcastable to x, True = keep."""
        return COMPANIONS[self.name][1](x, dim, mask=mask, **self.options())


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
        name: one of `list_maps()`, or a function beside a map: log_softmax, logsumexp or log_stablemax.
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
    if name in COMPANIONS:
        return Companion(name, **params)
    if name not in MAPS:
        known = [*list_maps(), *COMPANIONS]
        raise ValueError(f"name: expected one of {', '.join(known)}, got {name!r}{closest(name, known)}")
    return Map(name, **params)
