"""What options of several mechanisms may be."""

from __future__ import annotations

import numbers

from torch import Tensor

from manymax.maps.rule import check_count, check_option


def check_sizes(least: int = 1, /, **sizes: object) -> None:
    """Refuse sizes, options by their names, that are no whole numbers or smaller than the least that may be."""
    for name, size in sizes.items():
        expected = f"at least {least}" if isinstance(size, numbers.Integral) else "a whole number"
        check_count(name, size, lambda n: n >= least, expected)


def check_sizes_or_none(least: int = 1, /, **sizes: object) -> None:
    """Refuse what `check_sizes` does, but for None, which leaves the choice to the mechanism."""
    check_sizes(least, **{name: size for name, size in sizes.items() if size is not None})


def check_positive(**options: float) -> None:
    """Refuse options that are no numbers above 0, as NaN is none."""
    for name, number in options.items():
        check_option(name, number, lambda x: x > 0, "a positive number")


def check_floating(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuse tokens that are integers."""
    if query.is_floating_point() and key.is_floating_point() and value.is_floating_point():
        return
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not x.is_floating_point():
            raise ValueError(f"{name}: expected a floating dtype, got {x.dtype}")


def value_width(value_dim: int | None, head_dim: int) -> int:
    """Return the last dim of values: that of queries, unless another is given."""
    check_sizes_or_none(value_dim=value_dim)
    return head_dim if value_dim is None else value_dim
