"""Some tokens' scores at a time: what their losses are, and the gradient of the scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from manymax.kernels import cross_entropy as kernel

Reduction = Literal["none", "mean", "sum"]

SCORES = 2**22  # of a chunk: 16 MiB in float32, which leaves a matrix product long enough rows to run at full speed


class Linear(NamedTuple):
    """A linear map to scores.

    Attributes:
        input: (..., d).
        rows: (C, d).
        bias: (C,) or None.
    """

    input: Tensor
    rows: Tensor
    bias: Tensor | None

    def flat(self) -> Linear:
        """Return it with tokens in one dim, (N, d)."""
        return self._replace(input=self.input.reshape(-1, self.input.shape[-1]))


class Tensors(NamedTuple):
    """What `linear_cross_entropy` reads.

    Attributes:
        input: (N, d).
        linear_weight: (C, d).
        linear_bias: (C,) or None.
        target: classes (N,), or probabilities (N, C).
        weight: of the classes, (C,) or None.
        shares: of the tokens, (N,).
    """

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    weight: Tensor | None
    shares: Tensor


@dataclass(frozen=True)
class Settings:
    """The options of `linear_cross_entropy` that change its numbers."""

    ignore_index: int
    label_smoothing: float
    softcap: float | None
    lse_penalty: float
    filter_eps: float
    chunk_size: int | None

    def check(self, reduction: str) -> None:
        """Refuse values out of range."""
        if reduction not in {"none", "mean", "sum"}:
            raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1], got {self.label_smoothing!r}")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"softcap: expected a positive number or None, got {self.softcap!r}")
        if not self.lse_penalty >= 0:
            raise ValueError(f"lse_penalty: expected at least 0, got {self.lse_penalty!r}")
        if not 0 <= self.filter_eps < 1:
            raise ValueError(f"filter_eps: expected a number in [0, 1), got {self.filter_eps!r}")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size: expected at least 1, got {self.chunk_size}")

    def divisor(self, reduction: str, tensors: Tensors) -> Tensor:
        """Return what the sum of losses is divided by, 1 where nothing counts: the sum is then 0."""
        if reduction == "sum":
            return torch.ones((), device=tensors.input.device)
        total = self._counted(tensors).sum()
        return torch.where(total == 0, 1, total)

    def _counted(self, tensors: Tensors) -> Tensor:
        """Return what each token counts in a mean, (N,): its own weight times its class's, 0 if it is ignored."""
        target, shares = tensors.target, tensors.shares.to(wide(tensors.input.dtype))
        if target.is_floating_point():
            return shares
        kept = self.kept(tensors)
        if tensors.weight is not None:
            shares = shares * tensors.weight.to(shares.dtype)[torch.where(kept, target, 0)]
        return torch.where(kept, shares, 0)

    def kept(self, tensors: Tensors) -> Tensor:
        """Return which tokens take part, (N,)."""
        if tensors.target.is_floating_point():
            return torch.ones_like(tensors.shares, dtype=torch.bool)
        return tensors.target != self.ignore_index

    def kernel_inputs(self, tensors: Tensors) -> kernel.Inputs:
        """Return what the native kernel takes."""
        target = tensors.target
        if not target.is_floating_point():
            target = torch.where(self.kept(tensors), target, -1)
        return kernel.Inputs(
            *tensors[:3],
            tensors.weight,
            target,
            self.label_smoothing,
            self.softcap,
            self.lse_penalty,
            self.filter_eps,
            self.chunk_size,
        )


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which losses are computed: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def check_classes(target: Tensor, classes: int, ignore_index: int) -> None:
    """Refuse targets that are neither a class nor to be ignored."""
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    expected = f"classes in [0, {classes}) or {ignore_index}"
    if torch.compiler.is_compiling():  # a graph holds no values; it stops with a RuntimeError when it runs
        torch._assert_async(~wrong.any(), f"target: expected {expected}")  # noqa: SLF001
    elif wrong.any():
        raise ValueError(f"target: expected {expected}, got {int(target[wrong][0])}")


def reduce(losses: Tensor, kept: Tensor, reduction: Reduction) -> Tensor:
    """Return the losses (n,) of the tokens that count, reduced; "none" puts them in their places among all, (...)."""
    if reduction == "none":
        return losses.new_zeros(kept.shape).masked_scatter(kept, losses)
    return losses.sum() / max(1, len(losses)) if reduction == "mean" else losses.sum()


def chunks(count: int, classes: int, size: int | None) -> Iterator[slice]:
    """Yield the tokens of each chunk."""
    step = size or max(1, SCORES // max(classes, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


class Chunk:
    """Scores of some tokens, what their loss is, and its gradient, which takes the scores' memory.

    Everything is in float32, or float64 if the input is.
    """

    def __init__(self, tensors: Tensors, settings: Settings, part: slice) -> None:
        self.tensors, self.settings, self.part = tensors, settings, part
        self.input = tensors.input[part]
        scores = self.input @ tensors.linear_weight.T
        self.scores = scores.to(wide(scores.dtype))
        if tensors.linear_bias is not None:
            self.scores += tensors.linear_bias
        if settings.softcap is not None:
            self.scores.div_(settings.softcap).tanh_().mul_(settings.softcap)
        self.lse = self.scores.logsumexp(-1)
        self.kept, self.target = settings.kept(tensors)[part], tensors.target[part]
        if not self.target.is_floating_point():
            self.target = torch.where(self.kept, self.target, 0)
        self.weight = None if tensors.weight is None else tensors.weight.to(self.scores.dtype)
        self.shares = torch.where(self.kept, tensors.shares[part].to(self.scores.dtype), 0)

    def losses(self) -> Tensor:
        """Return the loss of each token, (n,)."""
        smooth, classes = self.settings.label_smoothing, self.scores.shape[1]
        mass, picked = self._aimed()
        if smooth:
            spread = self.scores.sum(1) if self.weight is None else self.scores @ self.weight
            total = classes if self.weight is None else self.weight.sum()
            mass, picked = mass + smooth / classes * total, picked + smooth / classes * spread
        penalty = self.settings.lse_penalty * self.lse.square() if self.settings.lse_penalty else 0
        return torch.where(self.kept, self.shares * (mass * self.lse - picked + penalty), 0)

    def _aimed(self) -> tuple[Tensor, Tensor]:
        """Return the sum of the targets' weights, and of their weighted scores, without what smoothing adds."""
        sharp = 1 - self.settings.label_smoothing
        if self.target.is_floating_point():
            aims = sharp * self.target.to(self.scores.dtype)
            aims = aims if self.weight is None else aims * self.weight
            return aims.sum(1), (aims * self.scores).sum(1)
        aim = sharp if self.weight is None else sharp * self.weight[self.target]
        picked = self.scores.gather(1, self.target[:, None])[:, 0]
        return torch.as_tensor(aim, dtype=picked.dtype, device=picked.device).expand_as(picked), aim * picked

    def d_target(self, d_losses: Tensor) -> Tensor:
        """Return the gradient of probabilities, (n, C)."""
        gain = (d_losses * self.shares * (1 - self.settings.label_smoothing))[:, None]
        away = self.lse[:, None] - self.scores
        return gain * (away if self.weight is None else away * self.weight)

    def d_scores(self, d_losses: Tensor, d_lse: Tensor | None) -> Tensor:
        """Return the gradient of the linear map's results, (n, C), in the place of the scores.

        Args:
            d_losses: of each token's loss, (n,).
            d_lse: of its lse; None is 0.
        """
        settings, classes = self.settings, self.scores.shape[1]
        gain = d_losses * self.shares
        mass, _ = self._aimed()
        even = settings.label_smoothing / classes
        mass = mass + even * (classes if self.weight is None else self.weight.sum())
        slope = gain * (mass + 2 * settings.lse_penalty * self.lse) if settings.lse_penalty else gain * mass
        if d_lse is not None:
            slope = slope + d_lse
        bend = None if settings.softcap is None else 1 - (self.scores / settings.softcap).square()
        d = self.scores.sub_(self.lse[:, None]).exp_().mul_(slope[:, None])
        if even:
            d -= (gain * even)[:, None] * (1 if self.weight is None else self.weight)
        if self.target.is_floating_point():
            aims = (1 - settings.label_smoothing) * self.target.to(d.dtype)
            d -= gain[:, None] * (aims if self.weight is None else aims * self.weight)
        else:
            aim = (1 - settings.label_smoothing) * (1 if self.weight is None else self.weight[self.target])
            d.scatter_add_(1, self.target[:, None], -(gain * aim)[:, None])
        return d if bend is None else d * bend
