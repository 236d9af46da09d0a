"""What every head shares: one score a class from a linear map, and the loss of a token's scores, by chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.chunk import Linear, Reduction, check_classes, chunks, reduce, wide
from manymax.heads.chunked_loss import Way, each, total
from manymax.heads.linear_cross_entropy import linear_cross_entropy


class Common(TypedDict, total=False):
    """The options that every head has; `Head` says what they mean."""

    bias: bool
    reduction: Reduction
    ignore_index: int
    float64: bool
    chunk_size: int | None


class Head(nn.Module):
    """Features to a loss. A subclass says what the `losses` of scores are; the rest is the same for all.

    Memory beside inputs and gradients is that of a chunk's scores, whatever the loss.

    Args:
        in_features: length of the features.
        num_classes: number of classes.
        bias: whether a class has a bias.
        reduction: "mean" over the targets that count, "sum", or "none". Without any such target it is 0.
        ignore_index: a target that takes no part.
        float64: compute the loss in float64, which postpones the absorption errors that stop training once every
            training example fits; the result is float32 again.
        chunk_size: tokens whose scores exist at once; None takes as many as 16 MiB of scores allow.

    Attributes:
        weight: (num_classes, in_features), one row a class.
        bias: (num_classes,) or None.
        soft_targets: whether a target may be a row of numbers, one a class.

    Raises:
        ValueError: if an option is out of range.
    """

    soft_targets: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        float64: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("num_classes", num_classes), ("chunk_size", chunk_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if reduction not in {"none", "mean", "sum"}:
            raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
        self.in_features, self.num_classes, self.chunk_size = in_features, num_classes, chunk_size
        self.reduction, self.ignore_index, self.float64 = reduction, ignore_index, float64
        self.weight: Tensor = nn.Parameter(torch.empty(num_classes, in_features))
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def scored(self, input: Tensor) -> Linear:
        """Return what is multiplied: features (..., d), one row for each score, and a bias or None."""
        return Linear(input, self.weight, self.bias)

    def logits(self, input: Tensor) -> Tensor:
        """Return one score a class, (..., num_classes), in the input's dtype."""
        return F.linear(*self.scored(input))

    def log_weights(self, scores: Tensor) -> Tensor:
        """Return the logarithm of the classes' probabilities along the last dim; they sum to 1."""
        return F.log_softmax(scores, dim=-1)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each token, (n,).

        Args:
            scores: (n, num_classes) in float32 at least.
            target: int64 (n,), each in [0, num_classes); or (n, num_classes), if the head takes soft targets.
        """
        return -self.log_weights(scores).gather(-1, target[:, None])[:, 0]

    def term(self, linear: Linear, target: Tensor) -> Tensor | None:  # noqa: ARG002  # a subclass's need
        """Return what the whole loss has beside its tokens' losses; left out where reduction is "none"."""
        return None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each in [0, num_classes) or `ignore_index`; where the head takes soft targets also
                floating (..., num_classes). It has no gradient.
        """
        return self.reduced(self.scored(input), target)

    def clear(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the features with zeros for ignored tokens, which may hold NaN, so that no gradient of theirs does."""
        ignored = target == self.ignore_index
        if target.is_floating_point() or target.shape != input.shape[:-1] or not bool(ignored.any()):
            return input
        return input.masked_fill(ignored[..., None], 0)

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss of features (..., d) scored against any rows; cross-entropy has a kernel of its own."""
        kind = type(self)
        if self.float64 or kind.losses is not Head.losses or kind.log_weights is not Head.log_weights:
            return self.reduced_by(self.losses, linear, target)
        return self.cross_entropy(linear, target)

    def cross_entropy(
        self, linear: Linear, target: Tensor, *, label_smoothing: float = 0.0, lse_penalty: float = 0.0
    ) -> Tensor:
        """Return what `reduced_by` would with cross-entropy as losses, by `linear_cross_entropy`."""
        self.check(linear, target)
        loss = linear_cross_entropy(
            linear.input,
            linear.rows,
            target,
            linear_bias=linear.bias,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            chunk_size=self.chunk_size,
            label_smoothing=label_smoothing,
            lse_penalty=lse_penalty,
        )
        assert isinstance(loss, Tensor)
        if self.reduction == "none" or type(self).term is Head.term:
            return loss
        flat, _, (wanted,) = self._counted(linear, target)
        return self._with_term(loss, flat, wanted)

    def reduced_by(self, losses: Callable[..., Tensor], linear: Linear, target: Tensor, *beside: Tensor) -> Tensor:
        """Return the loss of features (..., d) scored against any rows, by a function of scores.

        Args:
            losses: scores (n, C), targets (n, ...) and what is beside them, (n, ...) each, to losses (n,).
            linear: features and rows.
            target: as in `forward`.
            *beside: what else `losses` reads of each token, (..., any); it has no gradient.
        """
        self.check(linear, target)
        flat, kept, (target, *rows) = self._counted(linear, target, *beside)
        extra = tuple(parameter for name, parameter in self.named_parameters() if name not in {"weight", "bias"})

        def numbered(scores: Tensor, number: Tensor) -> Tensor:
            return losses(scores, target[number], *(row[number] for row in rows))

        way = Way(
            numbered if rows else losses, self.chunk_size, torch.float64 if self.float64 else wide(flat.input.dtype)
        )
        wanted = torch.arange(len(target), device=target.device) if rows else target
        if self.reduction == "none":
            return reduce(each(way, flat, wanted, extra), kept, "none")
        loss = total(way, flat, wanted, extra)
        loss = loss / max(1, len(target)) if self.reduction == "mean" else loss
        return self._with_term(loss, flat, target)

    def _counted(self, linear: Linear, *of_tokens: Tensor) -> tuple[Linear, Tensor, list[Tensor]]:
        """Return what counts, in one dim of tokens: features, and what each token has; and which count, (...)."""
        shape, target = linear.input.shape[:-1], of_tokens[0]
        kept = target != self.ignore_index
        if target.is_floating_point():
            kept = torch.ones(shape, dtype=torch.bool, device=target.device)
        flat, rows = linear.flat(), [x.reshape(-1, *x.shape[len(shape) :]) for x in of_tokens]
        if not bool(kept.all()):
            chosen = kept.reshape(-1)
            flat, rows = flat._replace(input=flat.input[chosen]), [row[chosen] for row in rows]
        return flat, kept, rows

    def _with_term(self, loss: Tensor, linear: Linear, target: Tensor) -> Tensor:
        term = self.term(linear, target)
        return loss if term is None else loss + term

    def check(self, linear: Linear, target: Tensor) -> None:
        """Refuse shapes and dtypes that do not fit."""
        shape, rows = linear.input.shape[:-1], linear.rows
        if linear.input.dtype != rows.dtype and not torch.is_autocast_enabled(linear.input.device.type):
            raise ValueError(f"input: expected {rows.dtype}, as the head's weight, got {linear.input.dtype}")
        if linear.input.shape[-1] != rows.shape[-1]:
            raise ValueError(f"input: expected (..., {rows.shape[-1]}), got {tuple(linear.input.shape)}")
        if target.dtype == torch.int64 and target.shape == shape:
            check_classes(target, len(rows), self.ignore_index)
            return
        if self.soft_targets and target.is_floating_point() and target.shape == (*shape, len(rows)):
            if target.requires_grad:
                raise ValueError("target: expected no requires_grad; detach it, it has no gradient")
            return
        also = f" or floating of shape {(*shape, len(rows))}" if self.soft_targets else ""
        raise ValueError(
            f"target: expected torch.int64 of shape {tuple(shape)}{also}, got {target.dtype} of shape "
            f"{tuple(target.shape)}"
        )

    @torch.no_grad()
    def nll(self, input: Tensor, target: Tensor) -> Tensor:
        """Return minus the logarithm of the target's probability, (...) in float32 at least; 0 where it is ignored.

        Unlike the loss it has no smoothing, no margin and no penalty, and so compares heads. It has no gradient.
        """
        flat, wanted = input.reshape(-1, input.shape[-1]), target.reshape(-1)
        found = torch.empty(len(flat), dtype=wide(input.dtype), device=input.device)
        for part in chunks(len(flat), self.num_classes, self.chunk_size):
            kept = wanted[part] != self.ignore_index
            logs = self.log_weights(self.logits(flat[part]).to(found.dtype))
            picked = logs.gather(-1, torch.where(kept, wanted[part], 0)[:, None])[:, 0]
            found[part] = torch.where(kept, -picked, 0)
        return found.view(target.shape)

    @torch.no_grad()
    def predict(self, input: Tensor) -> Tensor:
        """Return the class of the highest score, int64 (...)."""
        flat = input.reshape(-1, input.shape[-1])
        found = torch.empty(len(flat), dtype=torch.int64, device=input.device)
        for part in chunks(len(flat), self.num_classes, self.chunk_size):
            found[part] = self.logits(flat[part]).argmax(-1)
        return found.view(input.shape[:-1])

    def extra_repr(self) -> str:
        """Show the sizes, as `nn.Linear` does."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.bias is not None}"
