"""Softmax over the chunks that a head has kept and the query's own, with nothing of the size of all pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.attention.linear.token_order import kept_first

ROWS = 64  # queries of a block, or a chunk's if that is longer: chunks of 64, each a block, need no mask inside


class Kept(NamedTuple):
    """Tokens that a head keeps: its own come first, in order.

    Attributes:
        key: (B, H, kept, D).
        value: (B, H, kept, Dv).
        keep: which of them a head has kept, (B, H, kept); others have kept more.
        bias: what is added to the scores of queries in later chunks, (B, H, kept).
    """

    key: Tensor
    value: Tensor
    keep: Tensor
    bias: Tensor

    def joined(self, later: Kept) -> Kept:
        """Return these and later ones without those that no head keeps."""
        whole = [torch.cat(pair, 2) for pair in zip(self, later, strict=True)]
        first, most = kept_first(whole[2])
        first = first[:, :, :most]
        wide = first[..., None]
        key, value = (x.gather(2, wide.expand(-1, -1, -1, x.shape[3])) for x in whole[:2])
        return Kept(key, value, *(x.gather(2, first) for x in whole[2:]))


def attend_kept(query: Tensor, tokens: Kept, kept: Kept, before: Tensor, size: int) -> Tensor:
    """Return softmax attention over the tokens of earlier chunks that a head keeps and over a query's own chunk.

    A block of queries attends to what is kept of the chunks before the block, which it sees all of, and to itself; the
    logarithms of both denominators say how much each counts. What is held beside the tokens is one block squared.

    Args:
        query: (B, H, N, D); the first one begins a chunk.
        tokens: keys and values beside the queries, which of them a head keeps, and their bias, each (B, H, N, ...).
        kept: the kept ones of earlier tokens, then of these.
        before: how many of a head's kept ones are of earlier tokens, (B, H).
        size: tokens of a chunk.
    """
    if not tokens.value.numel():
        return tokens.value
    step = size * max(ROWS // size, 1)
    ends = torch.nn.functional.pad(tokens.keep.cumsum(2), (1, 0))[:, :, :-1:step]
    counts = before[:, :, None] + ends
    blocks = zip(*(torch.split(x, step, 2) for x in (query, *tokens)), strict=True)
    outs = []
    for (part, *own), count, most in zip(blocks, counts.unbind(2), counts.amax((0, 1)).tolist(), strict=False):
        near, near_total = _own(part, Kept(*own), size)
        if not most:
            outs.append(near)
            continue
        places = torch.arange(most, device=query.device)
        far, far_total = attention(
            part,
            kept.key[:, :, :most],
            kept.value[:, :, :most],
            attn_mask=(places < count[..., None])[:, :, None],
            bias=kept.bias[:, :, None, :most],
            return_lse=True,
        )
        outs.append(near + torch.sigmoid(far_total - near_total)[..., None] * (far - near))
    return torch.cat(outs, 2)


def _own(query: Tensor, tokens: Kept, size: int) -> tuple[Tensor, Tensor]:
    """Return attention inside a block, and the logarithm of its denominators: no query is without its own key."""
    key, value, keep, bias = tokens
    count = query.shape[2]
    if count <= size:
        out, total = attention(query, key, value, is_causal=True, return_lse=True)
        return out, total
    chunk = torch.arange(count, device=query.device) // size
    same, earlier = chunk[:, None] == chunk, chunk[:, None] > chunk
    # A query in the chunk itself reads it whatever its choice: only later ones weigh by it.
    seen = same.tril() | (earlier & keep[:, :, None])
    added = torch.where(same, 0, bias[:, :, None])
    out, total = attention(query, key, value, attn_mask=seen, bias=added, return_lse=True)
    return out, total
