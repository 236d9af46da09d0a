"""The output layer whose training costs the same for any number of classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manymax.heads.chunk import Reduction, check_classes, chunks, reduce
from manymax.heads.factored import FactoredWeight
from manymax.heads.spherical import SphericalLoss, SphericalName, Sums
from manymax.heads.z_loss_spherical import SphericalHead


class _Gradient(NamedTuple):
    """What a backward pass leaves for the update: features, targets, and what the loss gains by the three sums."""

    input: Tensor
    target: Tensor
    gains: tuple[Tensor, Tensor, Tensor]


class SphericalOutput(nn.Module):
    r"""Linear classes under a loss of the spherical family, with an SGD step that never looks at all of them.

    $$W \leftarrow W - \eta \sum_i \left(2 q_i W h_i + s_i 1 + g_i e_{c_i}\right) h_i^T$$

    with $h_i$ the features of a token, $c_i$ its target, $g_i$, $s_i$ and $q_i$ the derivatives of the loss for $o_c$,
    $\sum_k o_k$ and $\sum_k o_k^2$ of the scores $o = W h_i$, $e_c$ a unit vector and $\eta$ the learning rate. That is
    the step of SGD on a dense $W$ and the same loss. Here $W = V U + 1 \omega^T$, of which a step changes $U$ (d, d),
    $\omega$ (d,) and the targets' rows of $V$ (C, d); the sums come from $Q = W^T W$ (d, d) and $\bar w = W^T 1$. Loss,
    gradient of the features and step cost O(d^2) a token, whatever the number of classes $C$.

    The layer has no parameters: call `step` where the optimizer of the rest of the model steps. What backward passes
    leave for it is added up, as gradients are, until `step` uses it. A bias is a feature that is always 1.

    Rounding stays bounded: where singular values of $U$ stray far from 1 they are moved into $V$, which costs O(d) for
    each class, and every 8 C tokens $V$ becomes $W$ and all else is found anew, which is a small part of what those
    tokens cost, though one step pays it. Squared error at a high learning rate shrinks $U$ fast, and needs the former
    every few steps; the other losses seldom do. Weights are float32 or float64; other features are converted.

    Args:
        in_features: $d$, the length of the features.
        num_classes: $C$.
        loss: "z", "mse", "spherical" or "taylor", as in `SphericalHead`.
        a: of the Z-loss.
        b: of the Z-loss.
        eps: of the spherical softmax.
        reduction: "mean" over the targets that count, "sum", or "none". Without any such target it is 0.
        ignore_index: a target that takes no part.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch
        >>> layer, trunk = SphericalOutput(8, 1000), torch.nn.Linear(5, 8)
        >>> optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
        >>> layer(trunk(torch.ones(2, 5)), torch.tensor([3, 999])).backward()
        >>> optimizer.step()
        >>> layer.step(0.1)

    Source:
        Vincent, de Brébisson and Bouthillier, 2015, Efficient Exact Gradient Update for training Deep Networks with
        Very Large Sparse Targets, arXiv:1412.7091. The authors' code (pascal20100/factored_output_layer) sets back the
        largest and the smallest singular value every so many steps; here all that have strayed are, when they have.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        loss: SphericalName = "z",
        a: float = 0.1,
        b: float = 10.0,
        eps: float = 0.01,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("num_classes", num_classes)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if reduction not in {"none", "mean", "sum"}:
            raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
        self.in_features, self.num_classes = in_features, num_classes
        self.loss, self.reduction, self.ignore_index = SphericalLoss(loss, a, b, eps), reduction, ignore_index
        self.factored = FactoredWeight(torch.randn(num_classes, in_features) * in_features**-0.5)
        self._gradients: list[_Gradient] = []
        self._steps = 0

    @property
    def weight(self) -> Tensor:
        """A copy of $W$, (num_classes, in_features); assign to it to set the weight."""
        return self.factored.dense()

    @weight.setter
    def weight(self, value: Tensor) -> None:
        rows = self.factored.rows
        if value.shape != rows.shape:
            raise ValueError(f"weight: expected {tuple(rows.shape)}, got {tuple(value.shape)}")
        self.factored = FactoredWeight(value.detach().to(rows, copy=True))
        self._gradients.clear()
        self._steps += 1

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss, reduced, in the weight's dtype.

        Args:
            input: features (..., in_features).
            target: int64 (...), each in [0, num_classes) or `ignore_index`.
        """
        self._check(input, target)
        kept = target != self.ignore_index
        flat = input[kept].to(self.factored.rows.dtype)
        # The layer's own update needs a backward pass, whether the features have a gradient or not.
        anchor = torch.zeros((), requires_grad=torch.is_grad_enabled())
        with torch.autocast(flat.device.type, enabled=False):
            losses: Tensor = _losses(self, flat, target[kept], anchor)
        return reduce(losses, kept, self.reduction)

    def _check(self, input: Tensor, target: Tensor) -> None:
        """Refuse shapes and targets that do not fit, and weights too coarse to be kept as a product."""
        dtype = self.factored.rows.dtype
        if dtype not in {torch.float32, torch.float64}:
            raise ValueError(f"weight: expected torch.float32 or torch.float64, got {dtype}")
        if input.shape[-1] != self.in_features:
            raise ValueError(f"input: expected (..., {self.in_features}), got {tuple(input.shape)}")
        if target.dtype != torch.int64 or target.shape != input.shape[:-1]:
            raise ValueError(
                f"target: expected torch.int64 of shape {tuple(input.shape[:-1])}, got {target.dtype} of shape "
                f"{tuple(target.shape)}"
            )
        check_classes(target, self.num_classes, self.ignore_index)

    def step(self, lr: float) -> None:
        """Subtract the learning rate times the gradients that backward passes have left, and drop those.

        Raises:
            ValueError: if the learning rate is negative or not finite.
        """
        if not 0 <= lr < float("inf"):
            raise ValueError(f"lr: expected a finite number of at least 0, got {lr!r}")
        if self._gradients:
            inputs, targets, gains = zip(*self._gradients, strict=True)
            score, total, squares = (torch.cat(one) for one in zip(*gains, strict=True))
            self.factored.descend(torch.cat(inputs), torch.cat(targets), (score, total, squares), lr)
            self._gradients.clear()
            self._steps += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients that backward passes have left."""
        super().zero_grad(set_to_none)
        self._gradients.clear()

    @torch.no_grad()
    def logits(self, input: Tensor) -> Tensor:
        """Return one score a class, (..., num_classes), as `SphericalHead.logits` does; it has no gradient."""
        factored, high = self.factored, input.to(self.factored.rows.dtype)
        scores = (high @ factored.factor.T) @ factored.rows.T + (high @ factored.shift)[..., None]
        return self.loss.logits(scores).to(input.dtype)

    @torch.no_grad()
    def predict(self, input: Tensor) -> Tensor:
        """Return the class of the highest score, int64 (...)."""
        flat = input.reshape(-1, input.shape[-1])
        found = [self.logits(flat[part]).argmax(-1) for part in chunks(len(flat), self.num_classes, None)]
        return torch.cat(found).view(input.shape[:-1]) if found else flat.new_empty(input.shape[:-1]).long()

    def head(self) -> SphericalHead:
        """Return a head with this weight as its parameter, for what else heads do."""
        head = SphericalHead(
            self.in_features,
            self.num_classes,
            loss=self.loss.name,
            a=self.loss.a,
            b=self.loss.b,
            eps=self.loss.eps,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
        )
        head.weight = nn.Parameter(self.weight)
        return head

    def extra_repr(self) -> str:
        """Show the sizes, as `nn.Linear` does."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, loss={self.loss.name!r}"


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: SphericalOutput, input: Tensor, target: Tensor, anchor: Tensor) -> Tensor:
        """Return the losses, (n,), with their gradients found while the products are at hand."""
        del anchor
        factored = layer.factored
        turned, rows = input @ factored.gram, factored.picked(target)
        squares = (turned * input).sum(-1).clamp_min(0)  # rounding may leave less
        sums = Sums((rows * input).sum(-1), input @ factored.total, squares)
        if not any(ctx.needs_input_grad):
            return layer.loss.of(sums, layer.num_classes)
        sums = Sums(*(one.requires_grad_() for one in sums))
        with torch.enable_grad():
            losses = layer.loss.of(sums, layer.num_classes)
        found = torch.autograd.grad(losses, sums, torch.ones_like(losses), allow_unused=True)
        score, total, square = (torch.zeros_like(losses) if one is None else one for one in found)
        ctx.layer, ctx.steps = layer, layer._steps  # noqa: SLF001
        slope = score[:, None] * rows + total[:, None] * factored.total + (2 * square)[:, None] * turned
        ctx.save_for_backward(input, target, score, total, square, slope)
        return losses.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_losses: Tensor) -> tuple[Any, ...]:
        """Leave the gradient for `step` and return that of the features."""
        if ctx.steps != ctx.layer._steps:  # noqa: SLF001
            raise RuntimeError("the weight has changed since the forward pass; call backward before step")
        input, target, score, total, square, slope = ctx.saved_tensors
        gains = (score * d_losses, total * d_losses, square * d_losses)
        ctx.layer._gradients.append(_Gradient(input, target, gains))  # noqa: SLF001
        return None, slope * d_losses[:, None], None, None


_losses: Any = _Losses.apply  # untyped in torch
