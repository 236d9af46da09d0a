"""Tokens in order without padding between them, behind those that still wait for their chunk to be complete."""

from __future__ import annotations

import torch
from torch import Tensor


class Order:
    """Where tokens lie once the waiting ones stand before the new ones and padding has gone.

    Args:
        count: how many wait, (B,).
        keep: which of the new ones are no padding, (B, N); None is all.
        new: N.
        waiting: places of those that wait, count of which are taken.
    """

    def __init__(self, count: Tensor, keep: Tensor | None, new: int, waiting: int) -> None:
        batch, device = count.shape[0], count.device
        if keep is None:
            keep = torch.ones(batch, new, dtype=torch.bool, device=device)
        taken = torch.arange(waiting, device=device) < count[:, None]
        mask = torch.cat([taken, keep], 1)
        self.total = mask.sum(1)
        most = int(self.total.max()) if mask.numel() else 0
        self.source = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        self.there = torch.arange(most, device=device) < self.total[:, None]
        self.places = (mask.cumsum(1) - 1).clamp(min=0)[:, waiting:]
        self.keep, self.waiting = keep, waiting

    def merge(self, waiting: Tensor, new: Tensor) -> Tensor:
        """Return the tokens (B, H, tokens, D) in order, zeros behind a sequence's last."""
        joined = torch.cat([waiting, new], 2)
        where = self.source[:, None, :, None].expand(-1, joined.shape[1], -1, joined.shape[3])
        return torch.where(self.there[:, None, :, None], joined.gather(2, where), 0)

    def queries(self, new: Tensor) -> Tensor:
        """Return queries in order; those that wait have been answered and are zeros."""
        return self.merge(new.new_zeros(*new.shape[:2], self.waiting, new.shape[3]), new)

    def restore(self, out: Tensor) -> Tensor:
        """Return the outputs of the new tokens where they came from, zeros at padding."""
        where = self.places[:, None, :, None].expand(-1, out.shape[1], -1, out.shape[3])
        return torch.where(self.keep[:, None, :, None], out.gather(2, where), 0)

    def behind(self, tokens: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens behind the first `past` of each sequence, and how many there are."""
        count = self.total - past
        most = int(count.max()) if count.numel() else 0
        where = past[:, None] + torch.arange(most, device=past.device)
        there = where < self.total[:, None]
        where = where.clamp(max=max(tokens.shape[2] - 1, 0))[:, None, :, None]
        taken = tokens.gather(2, where.expand(-1, tokens.shape[1], -1, tokens.shape[3]))
        return torch.where(there[:, None, :, None], taken, 0), count


def kept_first(keep: Tensor) -> tuple[Tensor, int]:
    """Return an order in which each head's kept tokens come first, and how many the most of any head are."""
    most = int(keep.sum(2).max()) if keep.numel() else 0
    return (~keep).to(torch.int8).argsort(dim=2, stable=True), most
