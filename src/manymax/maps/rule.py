"""What a map says about itself, and the one driver that turns that into weights for any shape, dim, dtype and mask."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from manymax.kernels import rows

Kind = Literal["pointwise", "ratio", "threshold", "coupled"]
SomeRule = TypeVar("SomeRule", bound="Rule")


@dataclass(frozen=True)
class Rule:
    """A map with its options chosen: scores along the last dim become weights.

    A rule knows the formula and nothing of dims, dtypes or masks; `apply` takes care of those. Attention backends read
    `kind` and the parts that `Pointwise` and `Ratio` add to decide how far a row can be cut into tiles.

    Attributes:
        temperature: every score is divided by it first.
    """

    kind: ClassVar[Kind]
    hidden: ClassVar[float] = 0.0  # what an entry that is not visible gets; the log forms say -inf
    kernel: ClassVar[str | None] = None  # the row kernel with this formula; a subclass has another and does not inherit

    temperature: float | Tensor = 1.0

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive."""
        check_option("temperature", self.temperature, lambda value: value > 0, "a number above 0")

    @property
    def sums_to_one(self) -> bool:
        """Return whether the weights of a row with something to attend sum to 1."""
        raise NotImplementedError

    @property
    def row_kernel(self) -> str | None:
        """Return the name of the CPU's row kernel of this very class, None if it has none."""
        name: str | None = type(self).__dict__.get("kernel")
        return name

    def options(self) -> dict[str, Any]:
        """Return the options by name, temperature included."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def simplest(self) -> Rule:
        """Return the rule that computes the same by a shorter way, if these options allow one."""
        return self

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Turn scores (..., n) into weights (..., n).

        Args:
            scores: float32 or float64, already divided by the temperature, 0 where not visible.
            visible: bool, same shape, None for all; what an entry that is not visible gets does not matter.
        """
        raise NotImplementedError


def known_true(flag: Tensor) -> bool:
    """Return whether a flag can be read and is true.

    It cannot while a graph is compiled, under `vmap`, or without waiting for a device other than the CPU.
    """
    if torch.compiler.is_compiling() or flag.device.type != "cpu":
        return False
    try:
        return bool(flag)
    except RuntimeError:
        return False


def check_option(name: str, value: object, holds: Callable[[Any], Any], expected: str) -> None:
    """Raise ValueError unless an option's value holds; a tensor is trusted where `known_true` cannot read it."""
    if isinstance(value, Tensor):
        bad = known_true(~holds(value).all())
    else:
        bad = not isinstance(value, numbers.Real) or not holds(value)
    if bad:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def check_count(name: str, value: object, holds: Callable[[Any], bool], expected: str) -> None:
    """Raise ValueError unless a whole-number option holds."""
    if not isinstance(value, numbers.Integral) or not holds(value):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def check_broadcast(name: str, value: Tensor, x: Tensor) -> None:
    """Raise ValueError unless a tensor broadcasts to the shape of x without enlarging it."""
    sizes = zip(reversed(value.shape), reversed(x.shape), strict=False)
    if value.dim() > x.dim() or any(size not in {1, whole} for size, whole in sizes):
        raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(x.shape)}, got {tuple(value.shape)}")


def align(rule: SomeRule, x: Tensor, dim: int) -> SomeRule:
    """Return the rule with its tensor options, which broadcast to x, moved as x is when dim becomes its last."""
    moved = {}
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        if isinstance(value, Tensor) and value.dim() > 0:
            check_broadcast(field.name, value, x)
            value = value[(None,) * (x.dim() - value.dim())]
            moved[field.name] = value.movedim(dim, -1)
    return dataclasses.replace(rule, **moved) if moved else rule


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to accumulate in: float64 stays, everything shorter becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def visible_entries(x: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return where a score takes part: unmasked, and not -inf, which every map reads as "not there"; None is all.

    On the CPU one look at the smallest score, a fortieth of what a selection costs, spares every selection after it.
    """
    if mask is None and x.numel() > 0 and known_true(x.detach().amin() > -torch.inf):
        return None
    visible = x != -torch.inf
    if mask is None:
        return visible
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: expected dtype torch.bool (True = keep), got {mask.dtype}")
    check_broadcast("mask", mask, x)
    return visible & mask


def keep(x: Tensor, visible: Tensor | None, hidden: float) -> Tensor:
    """Return x where visible, a constant elsewhere."""
    return x if visible is None else torch.where(visible, x, hidden)


def count(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Return how many entries of each row are visible (..., 1), in the scores' dtype."""
    if visible is None:
        return torch.full_like(scores[..., :1], scores.shape[-1])
    return visible.sum(-1, keepdim=True).to(scores.dtype)


def hide(scores: Tensor, visible: Tensor | None, dim: int = -1) -> Tensor:
    """Put -inf where scores are not visible, except in a row along dim that shows nothing: -inf alone makes NaN."""
    if visible is None:
        return scores
    return keep(scores, visible | ~visible.any(dim, keepdim=True), -torch.inf)


def as_rows(rule: SomeRule, x: Tensor, dim: int, mask: Tensor | None) -> tuple[SomeRule, Tensor, Tensor | None]:
    """Return rule, scores over temperature, and what is visible, all with dim moved last, in the dtype to compute in.

    A masked score may be NaN or infinite: it becomes 0 before a formula sees it, since 0 * NaN is NaN backwards.
    """
    if not x.is_floating_point():
        raise ValueError(f"x: expected a floating-point tensor, got {x.dtype}")
    visible = visible_entries(x, mask)
    if x.dim() == 0:
        x, visible = x.unsqueeze(0), None if visible is None else visible.unsqueeze(0)
    rule = align(rule, x, dim)
    scores = keep(x, visible, 0).to(compute_dtype(x.dtype)).movedim(dim, -1)
    if isinstance(rule.temperature, Tensor) or rule.temperature != 1:
        scores = scores / rule.temperature
    return rule, scores, None if visible is None else visible.movedim(dim, -1)


def apply(rule: Rule, x: Tensor, dim: int = -1, mask: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Return the rule's weights of x along dim; entries that are not visible get `rule.hidden` and a zero gradient.

    The CPU's row kernels serve the calls where `rows.pays` says so, `reference` all others. Only kernels write into
    `out` at once, where it fits; else the result is copied there.
    """
    rule = rule.simplest()
    if torch.compiler.is_compiling():  # asked first: before torch 2.7 the compiler cannot follow `vars`
        return reference(rule, x, dim, mask)
    name = rule.row_kernel
    if name is None or not rows.pays(name, rule.options(), x, dim, mask):
        return write_out(reference(rule, x, dim, mask), out)
    if mask is not None:
        check_broadcast("mask", mask, x)
    if out is not None and rows.writes_into(name, out, x, dim, mask):
        return rows.weights(name, rule.options(), x, dim, mask, out=out)
    plain = functools.partial(reference, rule, dim=dim, mask=mask)
    return write_out(rows.weights(name, rule.options(), x, dim, mask, reference=plain), out)


def reference(rule: Rule, x: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
    """Return what `apply` does, in plain PyTorch: the oracle, which has derivatives of every order."""
    rule, scores, visible = as_rows(rule, x, dim, mask)
    if x.numel() == 0:
        return x.clone()
    weights = keep(rule.weights(scores, visible), visible, rule.hidden).to(x.dtype)
    return weights.movedim(-1, dim) if x.dim() > 0 else weights.squeeze(0)


def write_out(result: Tensor, out: Tensor | None) -> Tensor:
    """Return the result, copied into `out` if given, under the rules of torch's own out= arguments."""
    if out is None:
        return result
    if torch.is_grad_enabled() and (result.requires_grad or out.requires_grad):
        raise RuntimeError("out: functions with out= do not support automatic differentiation; expected no gradient")
    if out.dtype != result.dtype or out.device != result.device:
        expected, got = (f"a {tensor.dtype} tensor on {tensor.device}" for tensor in (result, out))
        raise RuntimeError(f"out: expected {expected}, got {got}")
    # A product with 1 resizes as torch does: silently if out is empty, with its warning otherwise.
    return torch.mul(result, 1, out=out)
