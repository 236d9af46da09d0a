"""Classes that are places in the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from manymax.heads.chunk import Linear, reduce, wide
from manymax.heads.head import Common, Head
from manymax.heads.structured import by_chunks

if TYPE_CHECKING:
    from typing_extensions import Unpack

Combine = Literal["additive", "dot"]


class Asked(NamedTuple):
    """Tokens and the positions that they choose from.

    Attributes:
        query: of each token, (N, d).
        key: of each sequence's positions, (B, n, d).
        owner: each token's sequence, (N,).
        seen: which positions it may choose, (N, n); None is all.
    """

    query: Tensor
    key: Tensor
    owner: Tensor
    seen: Tensor | None = None


class PointerHead(Head):
    r"""Attention as the output: a class is one of the positions given with the call.

    $$L = -\log \operatorname{softmax}(u)_y, \qquad u_j = v^\top \tanh(W_1 e_j + W_2 h)
    \quad \text{or} \quad u_j = e_j^\top h$$

    with $h$ the features, $e_j$ the position's features, $y$ the target's place and $v$, $W_1$, $W_2$ learnt. Each
    sequence may have its own positions, any number of them, in `memory`; without it the head's own rows are the
    positions.

    Args:
        in_features: length of $h$ and of each $e_j$.
        num_classes: number of the head's own positions.
        combine: "additive" for the first $u$, "dot" for the second.
        hidden: length of $v$; None is in_features. "dot" has none.
        **common: the options of every head but `bias`.

    Attributes:
        weight: (num_classes, in_features), the head's own positions.

    Raises:
        ValueError: if an option is out of range, or memory, mask or target do not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("pointer-networks", in_features=8, num_classes=1)
        >>> x, memory, target = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randint(5, (2, 3))
        >>> head(x, target, memory=memory).shape, head.logits(x, memory=memory).shape
        (torch.Size([]), torch.Size([2, 3, 5]))

    Source:
        Vinyals, Fortunato and Jaitly, 2015, Pointer Networks, arXiv:1506.03134.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        combine: Combine = "additive",
        hidden: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if self.bias is not None:
            raise ValueError("bias: expected False, a position has none, got True")
        if combine not in {"additive", "dot"}:
            raise ValueError(f"combine: expected 'additive' or 'dot', got {combine!r}")
        if hidden is not None and (hidden < 1 or combine == "dot"):
            raise ValueError(f"hidden: expected at least 1, or None with combine='dot', got {hidden}")
        self.combine = combine
        if combine == "additive":
            hidden = in_features if hidden is None else hidden
            self.key = nn.Linear(in_features, hidden, bias=False)
            self.query = nn.Linear(in_features, hidden, bias=False)
            self.v = nn.Parameter(torch.empty(hidden))
            for parameter in (self.key.weight, self.query.weight, self.v):
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    def logits(self, input: Tensor, *, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return one score a position, (..., num_classes), or (B, T, n) with memory, -inf where the mask says no."""
        asked = self._asked(input, memory, mask)
        scores = point(asked, self._v(), input.dtype)
        return scores.view(*input.shape[:-1], scores.shape[-1])

    def forward(
        self, input: Tensor, target: Tensor, *, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features), or (B, T, in_features) with memory.
            target: int64 (...), places in the memory, or `ignore_index`.
            memory: positions (B, n, in_features); None is the head's own.
            mask: bool (B, n) or (B, T, n), True where a position may be chosen; None is everywhere.
        """
        count = self.num_classes if memory is None else memory.shape[-2]
        self.check(Linear(input, self.weight[:1].expand(count, -1), None), target)
        kept = (target != self.ignore_index).reshape(-1)
        input = torch.where(kept.view(*target.shape, 1), input, 0)  # whatever an ignored token holds
        asked, wanted = self._asked(input, memory, mask), target.reshape(-1)
        if asked.seen is not None:
            hidden = kept & ~asked.seen.gather(1, torch.where(kept, wanted, 0)[:, None])[:, 0]
            if bool(hidden.any()):
                raise ValueError(f"target: expected positions that the mask keeps, got {int(wanted[hidden][0])}")
        dtype, v = torch.float64 if self.float64 else wide(input.dtype), self._v()

        def losses(wanted: Tensor, query: Tensor, owner: Tensor, *seen: Tensor) -> Tensor:
            scores = point(Asked(query, asked.key, owner, *seen), v, dtype)
            return scores.logsumexp(-1) - scores.gather(1, wanted[:, None])[:, 0]

        tokens = (wanted, asked.query, asked.owner, *(() if asked.seen is None else (asked.seen,)))
        found = by_chunks(losses, tuple(x[kept] for x in tokens), asked.key[:1].numel(), self.chunk_size)
        return reduce(found.to(wide(input.dtype)), kept.view(target.shape), self.reduction)

    def _v(self) -> Tensor | None:
        return self.v if self.combine == "additive" else None

    def _asked(self, input: Tensor, memory: Tensor | None, mask: Tensor | None) -> Asked:
        """Return what is compared, each token on its own."""
        key = self.weight[None] if memory is None else memory
        owner = torch.zeros(input.shape[:-1], dtype=torch.int64, device=input.device)
        if memory is not None:
            if input.dim() != 3 or memory.dim() != 3 or memory.shape[::2] != (len(input), self.in_features):
                raise ValueError(
                    f"memory: expected (B, n, {self.in_features}) beside input (B, T, {self.in_features}), got "
                    f"{tuple(memory.shape)} and {tuple(input.shape)}"
                )
            owner = owner + torch.arange(len(input), device=input.device)[:, None]
        if mask is not None:
            if mask.dtype != torch.bool or memory is None:
                raise ValueError("mask: expected bool, beside memory")
            shape = (*input.shape[:2], key.shape[1])
            mask = (mask[:, None] if mask.dim() == 2 else mask).expand(shape).reshape(-1, shape[-1])
        query = input.reshape(-1, input.shape[-1])
        if self.combine == "additive":
            query, key = self.query(query), self.key(key)
        return Asked(query, key, owner.reshape(-1), mask)


def point(asked: Asked, v: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return scores (N, n) in a dtype."""
    key = asked.key if len(asked.key) == 1 else asked.key[asked.owner]
    if v is None:
        scores = (key @ asked.query[..., None])[..., 0].to(dtype)
    else:
        scores = torch.tanh((key + asked.query[:, None]).to(dtype)) @ v.to(dtype)
    return scores if asked.seen is None else scores.masked_fill(~asked.seen, -torch.inf)
