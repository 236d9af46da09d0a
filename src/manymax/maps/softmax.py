"""Softmax, its logarithm and its normaliser."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from manymax.kernels import rows
from manymax.maps.ratio import Ratio, Statistic
from manymax.maps.rule import apply, as_rows, check_broadcast, hide, keep, write_out


@dataclass(frozen=True)
class Exponential(Ratio):
    """g(x) = exp(x), relative to the row's maximum."""

    statistic: ClassVar[Statistic] = "max"

    def numerator(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return exp(score - shift)."""
        return torch.exp(score - shift)

    def numerator_grad(self, score: Tensor, shift: Tensor) -> Tensor:
        """Return exp(score - shift): exp is its own derivative."""
        return torch.exp(score - shift)

    def log_scale(self, shift: Tensor) -> Tensor:
        """Return the shift, since exp(x) = exp(x - c) exp(c)."""
        return shift


@dataclass(frozen=True)
class Softmax(Exponential):
    """The exponential over the row's sum of it, for which torch has fused forms."""

    kernel: ClassVar[str | None] = "softmax"

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return torch.softmax of what is visible."""
        return torch.softmax(hide(scores, visible), -1)

    def log_total(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return torch.logsumexp of what is visible (..., 1), -inf for a row that shows nothing."""
        total = torch.logsumexp(hide(scores, visible), -1, keepdim=True)
        return total if visible is None else keep(total, visible.any(-1, keepdim=True), -torch.inf)


@dataclass(frozen=True)
class LogSoftmax(Softmax):
    """log w = x - log sum exp(x)."""

    kernel: ClassVar[str | None] = "log_softmax"
    hidden: ClassVar[float] = -torch.inf

    def weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return torch.log_softmax of what is visible."""
        return torch.log_softmax(hide(scores, visible), -1)


def softmax(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    r"""Exponentiate scores and divide by their sum.

    $$w_i = \frac{e^{x_i / T}}{\sum_j e^{x_j / T}}$$

    with $T$ the temperature and the sum over the visible entries of the row.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score weighs 0, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.
        out: where to write the weights, a tensor of x's dtype; resized if its shape differs.

    Returns:
        Weights of x's shape and dtype; a row sums to 1, or to 0 if it shows nothing.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.
        RuntimeError: if `out` has another dtype or device, or a gradient is asked for together with `out`.

    Example:
        >>> import torch, manymax as mm
        >>> mm.softmax(torch.zeros(2, 2), mask=torch.tensor([[True, True], [True, False]]))
        tensor([[0.5000, 0.5000],
                [1.0000, 0.0000]])

    Source:
        Bridle, 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs, with Relationships to
        Statistical Pattern Recognition, Neurocomputing, NATO ASI Series F68.
    """
    return apply(Softmax(temperature), x, dim, mask, out)


def log_softmax(
    x: Tensor,
    dim: int = -1,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    r"""Return the logarithm of `softmax`.

    $$\log w_i = \frac{x_i}{T} - \log \sum_j e^{x_j / T}$$

    with $T$ the temperature and the sum over the visible entries of the row.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim along which to normalise.
        mask: bool, broadcastable to `x`, True = keep. A masked score gets -inf, as does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.
        out: where to write the result, a tensor of x's dtype; resized if its shape differs.

    Returns:
        Logarithms of weights, of x's shape and dtype.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.
        RuntimeError: if `out` has another dtype or device, or a gradient is asked for together with `out`.

    Example:
        >>> import torch, manymax as mm
        >>> mm.log_softmax(torch.tensor([0.0, -1000.0, -1000.0]))
        tensor([    0., -1000., -1000.])

    Source:
        Bridle, 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs, with Relationships to
        Statistical Pattern Recognition, Neurocomputing, NATO ASI Series F68.
    """
    return apply(LogSoftmax(temperature), x, dim, mask, out)


def logsumexp(
    x: Tensor,
    dim: int | tuple[int, ...] = -1,
    keepdim: bool = False,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    r"""Return the logarithm of softmax's denominator.

    $$\operatorname{lse} = \log \sum_j e^{x_j / T}$$

    with $T$ the temperature and the sum over the visible entries of one dim or several.

    Args:
        x: scores, any floating dtype and shape.
        dim: the dim or dims to sum over; () is all of them, as in torch.
        keepdim: whether the dims stay, with size 1.
        mask: bool, broadcastable to `x`, True = keep. A masked score adds nothing, nor does a score of -inf.
        temperature: $T > 0$; a tensor broadcasts to `x`.
        out: where to write the result, a tensor of x's dtype; resized if its shape differs.

    Returns:
        Of x's dtype and of its shape without `dim`; -inf, with zero gradients, where nothing is visible.

    Raises:
        ValueError: if x is not floating-point, the mask is not bool or does not broadcast, or temperature <= 0.
        RuntimeError: if `out` has another dtype or device, or a gradient is asked for together with `out`.

    Example:
        >>> import torch, manymax as mm
        >>> mm.logsumexp(torch.tensor([[10.0, 10.0], [0.0, -torch.inf]]), dim=1)
        tensor([10.6931,  0.0000])

    Source:
        Blanchard, Higham and Higham, 2021, Accurately computing the log-sum-exp and softmax functions, IMA Journal of
        Numerical Analysis 41(4).
    """
    rule = Softmax(temperature)
    dims = (dim,) if isinstance(dim, int) else dim or tuple(range(x.dim()))
    if not rows.pays("logsumexp", rule.options(), x, dims[0] if dims else 0, mask):
        return write_out(_restore(_plain_logsumexp(rule, dims, mask, x), x, dims, keepdim), out)
    if mask is not None:
        check_broadcast("mask", mask, x)
    scores, axis, visible = x, dims[0], mask
    if len(dims) > 1:
        scores, axis = _join(x, dims), -1
        visible = None if mask is None else _join(mask.expand(x.shape), dims)
    if out is not None and not keepdim and rows.writes_into("logsumexp", out, scores, axis, visible):
        return rows.weights("logsumexp", rule.options(), scores, axis, visible, out=out)
    plain = functools.partial(_plain_logsumexp, rule, (axis,), visible)
    total = rows.weights("logsumexp", rule.options(), scores, axis, visible, reference=plain)
    return write_out(_restore(total, x, dims, keepdim), out)


def _join(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return x with several dims as its one last: a view where they lie as one in memory."""
    return x.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))


def _plain_logsumexp(rule: Softmax, dims: tuple[int, ...], mask: Tensor | None, x: Tensor) -> Tensor:
    """Return log-sum-exp over dims, which do not stay, in plain PyTorch."""
    rule, scores, visible = as_rows(rule, x, -1, mask)
    dims = dims or (0,)  # of a single number
    visible = None if visible is None else _join(visible, dims)
    return rule.log_total(_join(scores, dims), visible).squeeze(-1).to(x.dtype)


def _restore(total: Tensor, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Return the total with the dims that were summed over at size 1, if they are to stay."""
    if keepdim and x.dim() > 0:
        for kept in sorted(d % x.dim() for d in dims):
            total = total.unsqueeze(kept)
    return total
