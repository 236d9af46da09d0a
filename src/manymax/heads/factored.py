"""A matrix with a row a class, kept as a product so that a change of all its rows costs nothing for each of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LIMIT = 100.0  # of the factor's norm and its inverse's: float32 then still has five digits of a row
STRAYED = 2.0  # where the limit is passed, singular values out of [1 / STRAYED, STRAYED] are set to 1
REBUILT = 8  # examples for each class between two rebuilds: half a multiplication by a (d, d) matrix an example
ROWS = 2**22  # numbers of the rows that exist a second time at once


class FactoredWeight(nn.Module):
    r"""$W = V U + 1 \omega^T$ with $Q = W^T W$ and $\bar w = W^T 1$.

    $W \leftarrow W A$ for a small matrix $A$ changes $U$, and moving all rows changes $\omega$: both without a look at
    the $C$ rows of $V$. Of the rows that a minibatch names, $V$ changes.

    Args:
        weight: $W$, (C, d); it becomes $V$, without a copy.

    Attributes:
        rows: $V$, (C, d).
        factor: $U$, (d, d).
        inverse: $U^{-1}$.
        gram: $Q$, (d, d).
        total: $\bar w$, (d,).
        shift: $\omega$, (d,).
        corrections: how often singular values of $U$ were set back.
        rebuilds: how often $V$ became $W$.
    """

    rows: Tensor
    factor: Tensor
    inverse: Tensor
    gram: Tensor
    total: Tensor
    shift: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        d = weight.shape[1]
        self.register_buffer("rows", weight)
        for name, shape in [
            ("factor", (d, d)),
            ("inverse", (d, d)),
            ("gram", (d, d)),
            ("total", (d,)),
            ("shift", (d,)),
        ]:
            self.register_buffer(name, weight.new_zeros(shape))
        self.factor.fill_diagonal_(1)
        self.corrections, self.rebuilds = 0, -1  # the first one builds
        self.rebuild()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FactoredWeight:
        """Convert all tensors; Q and the sum rounded to another type are those of another matrix."""
        before = self.rows.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.rows.dtype != before:
            self.rebuild()
        return self

    def picked(self, classes: Tensor) -> Tensor:
        """Return rows of $W$."""
        return self.rows[classes] @ self.factor + self.shift

    def dense(self) -> Tensor:
        """Return $W$."""
        return self.rows @ self.factor + self.shift

    def _parts(self) -> tuple[Tensor, ...]:
        """Return the rows of $V$ by as many as may exist twice."""
        return torch.split(self.rows, max(1, ROWS // self.rows.shape[1]))

    @torch.no_grad()
    def rebuild(self) -> None:
        r"""Let $V$ be $W$ and take $Q$ and $\bar w$ from it, which ends all rounding that they have gathered.

        It costs O(d^2) for each class, and is due after as many examples as that is O(d^2) for each of them.
        """
        self.gram.zero_()
        self.total.zero_()
        for part in self._parts():
            part.copy_(part @ self.factor + self.shift)
            self.gram.addmm_(part.T, part)
            self.total += part.sum(0)
        self.factor.zero_().fill_diagonal_(1)
        self.inverse.copy_(self.factor)
        self.shift.zero_()
        self._examples = self._since_inverse = 0
        self.rebuilds += 1

    @torch.no_grad()
    def descend(self, input: Tensor, target: Tensor, gains: tuple[Tensor, Tensor, Tensor], rate: float) -> None:
        r"""Subtract the rate times $\sum_i (2 q_i W h_i + s_i 1 + g_i e_{c_i}) h_i^T$.

        Args:
            input: $h$, (n, d).
            target: $c$, (n,).
            gains: derivatives of the loss for the target's score $g$, the sum of scores $s$ and of squares $q$; (n,).
            rate: the learning rate.
        """
        score, total, squares = gains
        self._examples += len(input)
        self._turn(input, (2 * rate * squares)[:, None] * input)
        self._move(-rate * (total @ input))
        classes, place = torch.unique(target, return_inverse=True)
        change = torch.zeros(len(classes), input.shape[1], dtype=input.dtype, device=input.device)
        self._change(classes, change.index_add_(0, place, (-rate * score)[:, None] * input))
        if self._examples >= REBUILT * len(self.rows):
            self.rebuild()

    def _turn(self, input: Tensor, scaled: Tensor) -> None:
        """Multiply $W$ by the symmetric I - input^T scaled."""
        self.gram -= (self.gram @ input.T) @ scaled
        self.gram -= scaled.T @ (input @ self.gram)
        self.total -= (self.total @ input.T) @ scaled
        self.shift -= (self.shift @ input.T) @ scaled
        self.factor -= (self.factor @ input.T) @ scaled
        self._since_inverse += len(input)
        if self._since_inverse > 2 * input.shape[1]:
            # From scratch, an inverse costs 2 d^3: d^2 for each example since the last one, and it forgets rounding.
            self.inverse = torch.linalg.inv_ex(self.factor).inverse
            self._since_inverse = 0
        else:  # Woodbury's identity
            small = torch.eye(len(input), dtype=input.dtype, device=input.device) - scaled @ input.T
            self.inverse += input.T @ torch.linalg.solve_ex(small, scaled @ self.inverse).result
        limit = max(LIMIT, 4 * STRAYED * input.shape[1] ** 0.5)
        if not bool(torch.stack([self.factor.norm(), self.inverse.norm()]).amax() <= limit):
            self._correct()

    def _move(self, step: Tensor) -> None:
        """Add the same to every row of $W$."""
        outer = self.total[:, None] * step
        self.gram += outer + outer.T + len(self.rows) * step[:, None] * step
        self.total += len(self.rows) * step
        self.shift += step

    def _change(self, classes: Tensor, change: Tensor) -> None:
        """Add to some rows of $W$, each named once."""
        cross = self.picked(classes).T @ change
        self.gram += cross + cross.T + change.T @ change
        self.total += change.sum(0)
        self.rows.index_add_(0, classes, change @ self.inverse)

    def _correct(self) -> None:
        """Move singular values of $U$ that have strayed from 1 into $V$: $W$ stays, and the inverse is new.

        It costs O(d) for each class and value. A value of 0, which has no inverse, is moved as well as any other.
        """
        if not bool(self.factor.isfinite().all()):
            return  # training has diverged, as it would have with a dense weight
        left, values, right = torch.linalg.svd(self.factor)
        strayed = (values < 1 / STRAYED) | (values > STRAYED)
        out = left[:, strayed]
        for part in self._parts():
            part.addmm_((part @ out) * (values[strayed] - 1), out.T)
        values[strayed] = 1
        self.factor = (left * values) @ right
        self.inverse = (right.T / values) @ left.T
        self.corrections += 1
        self._since_inverse = 0
