"""NAtS-L: each chunk of tokens is kept for softmax attention or written to a gated delta state, by a learnt choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.linear.delta import GatedDelta
from manymax.attention.linear.kept import Kept, attend_kept
from manymax.attention.linear.parts import HeadLinear, HeadNorm, per_head
from manymax.attention.linear.recurrence import linear_attention
from manymax.attention.linear.token_order import Order
from manymax.attention.mechanism import Choices, both_ways
from manymax.attention.options import check_sizes
from manymax.attention.state import State


class Tokens(NamedTuple):
    """What both parts read of tokens, each (B, H, tokens, ...), padding removed and zeros behind the last.

    Attributes:
        key: for softmax attention.
        value: for softmax attention, and for the choice.
        erase: the delta rule's key.
        write: the delta rule's value.
        decay: its log decay, (B, H, tokens).
        beta: its strength, (B, H, tokens).
    """

    key: Tensor
    value: Tensor
    erase: Tensor
    write: Tensor
    decay: Tensor
    beta: Tensor


@dataclass(frozen=True)
class HybridState(State):
    """What NAtS-L keeps.

    Attributes:
        memory: the delta state before the chunk that is not complete, (B, H, D, Dv), in float32 at least.
        key: keys of the chunks that were kept, (B, H, kept, D).
        value: their values, (B, H, kept, Dv).
        keep: which of them a head has kept, (B, H, kept).
        bias: the logarithm of their chunk's choice, 0, with the choice's gradient, (B, H, kept).
        open: `Tokens` of the chunk that is not complete, side by side, (B, H, tokens, 2 D + 2 Dv + 2).
        count: how many of those there are, (B,).
        length: tokens so far, (B,).
        tail: the last inputs of the short convolution; None without one.
    """

    memory: Tensor
    key: Tensor
    value: Tensor
    keep: Tensor
    bias: Tensor
    open: Tensor
    count: Tensor
    length: Tensor
    tail: Tensor | None


class NAtSLinear(GatedDelta):
    r"""Attend to the chunks that a head keeps by softmax, and to the others through a gated delta state.

    $$o_i = \bigl(w_{i1}\, \mathrm{norm}(\mathrm{softmax}_j(q_i \cdot k_j / \sqrt{d})\, v_j)
    + w_{i2}\, \mathrm{norm}(S_i^\top \tilde q_i / \sqrt{d})\bigr) \odot \mathrm{SiLU}(W v_i), \qquad
    w_i = \mathrm{softmax}(U \tilde q_i)$$

    $$y_c = \mathrm{onehot}(\arg\max R\, \bar v_c)$$

    Softmax runs over the tokens of chunks with $y_{c1} = 1$ and of the query's own chunk, up to the query. The state
    $S_i$ is that of `gated-delta`, written by the chunks with $y_{c2} = 1$ and by the query's own chunk; all chunks let
    it fade. $q_i$, $k_j$ and $v_j$ are queries, keys and values, $\tilde q_i$ the query after a short convolution and
    SiLU scaled to length 1, $\bar v_c$ the mean of the values of chunk c, and R, U, W and the norms' gains are learnt.
    The choice of a chunk is differentiated as if it were the softmax of its scores (straight through), for R alone: the
    values' gradient is that of the formula.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        block_size: tokens of a chunk.
        **options: `conv_size`, `negative` and `gate`, as for `gated-delta`, and `value_dim`, `chunk_size` and
            `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("nats-l", head_dim=16, num_heads=2, block_size=4)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> int(state.count), state.keep.shape[:2]  # 2 chunks were decided, 2 tokens wait
        (2, torch.Size([1, 2]))

    Source:
        Deng et al., 2026, Neural Attention Search Linear: Towards Adaptive Token-Level Hybrid Attention Models,
        arXiv:2602.03681. Fusion, pooling, chunks of 64 and no window are the released code's, whose scores read the
        token's features; its gradient reaches those features through the choice, and its backward pass is not the
        derivative of its forward pass: it leaves kept chunks out that do not end before the query's begins.
    """

    choices = Choices(
        "SiLU, length 1; exp(q · k) on kept chunks",
        "learnt, one a token",
        "delta rule, or kept, by chunk",
        "RMS of a head",
        "Dk Dv + (kept + 2 open) (Dk + Dv + 1) + 3 (2 Dk + Dv)",
        "short convolution, choice of chunks, output gate",
    )

    def __init__(self, *, head_dim: int, num_heads: int, block_size: int = 64, **options: Any) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        check_sizes(block_size=block_size)
        self.block_size = block_size
        self.choose = HeadLinear(num_heads, self.value_dim, 2)
        self.share = HeadLinear(num_heads, head_dim, 2)
        self.kept_norm = HeadNorm(num_heads, self.value_dim)

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: Any | None
    ) -> tuple[Tensor, Any]:
        """Return the outputs and the state after the last token."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        before: HybridState = self._start(query, value, dtype) if state is None else state.computed_in(dtype)
        (reads, erase, write, decay, beta), length, tail, _ = self.prepared(query, key, value, keep, before)
        heads = [per_head(x, self.num_heads) for x in (key, value, erase, write)]
        new = torch.cat([x.to(dtype) for x in (*heads, decay[..., None], beta[..., None])], -1)  # type: ignore[index]
        order = Order(before.count, keep, query.shape[2], before.open.shape[2])
        tokens = self._split(order.merge(before.open, new))
        chunks = -(-tokens.key.shape[2] // self.block_size)
        complete = order.total[:, None] >= self.block_size * torch.arange(1, chunks + 1, device=query.device)
        choice = self._choice(tokens.value, complete)
        delta, memory = self._delta(order.queries(reads.to(dtype)), tokens, choice, complete, before.memory)
        own, past = self._keep(tokens, choice, complete), Kept(before.key, before.value, before.keep, before.bias)
        # Most steps of one token complete no chunk and need not copy all that is kept.
        kept = past.joined(own) if bool(complete.any()) else past
        found = attend_kept(order.queries(query.to(dtype)), own, kept, past.keep.sum(2), self.block_size)
        parts = [order.restore(x).to(query.dtype) for x in (found, delta)]
        share = self.share(reads * self.head_dim**0.5).softmax(-1)  # of queries of length 1
        out = share[..., :1] * self.kept_norm(parts[0]) + share[..., 1:] * self.norm(parts[1])
        out = out if self.gate is None else self.gate(out, value)
        wide = torch.cat([x if x.dim() == 4 else x[..., None] for x in tokens], -1)
        waiting, count = order.behind(wide, complete.sum(1) * self.block_size)
        return out, HybridState(memory, *kept, waiting, count, length, tail)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the mean of two scans, one in each direction."""
        return both_ways(self.scan, (query, key, value), keep)

    def _start(self, query: Tensor, value: Tensor, dtype: torch.dtype) -> HybridState:
        """Return the state before the first token."""
        batch, dim = query.shape[0], value.shape[3]
        empty = query.new_zeros(batch, self.num_heads, 0, dtype=dtype)
        none = torch.zeros(batch, dtype=torch.int64, device=query.device)
        memory = query.new_zeros(batch, self.num_heads, self.head_dim, dim, dtype=dtype)
        sizes = (self.head_dim, dim, 2 * self.head_dim + 2 * dim + 2)
        key, past, pending = (empty[..., None].expand(-1, -1, -1, size) for size in sizes)
        return HybridState(memory, key, past, empty.bool(), empty, pending, none, none, None)

    def _split(self, joined: Tensor) -> Tokens:
        dim = (joined.shape[-1] - 2 * self.head_dim - 2) // 2
        sizes = [self.head_dim, dim, self.head_dim, dim, 1, 1]
        key, value, erase, write, decay, beta = torch.split(joined, sizes, -1)
        return Tokens(key, value, erase, write, decay[..., 0], beta[..., 0])

    def _choice(self, value: Tensor, complete: Tensor) -> Tensor:
        """Return y, (B, H, chunks, 2): keep or write; chunks that are not complete count as both."""
        chunks = complete.shape[1]
        short = chunks * self.block_size - value.shape[2]
        padded = F.pad(value, (0, 0, 0, short))
        means = padded.reshape(*value.shape[:2], chunks, self.block_size, value.shape[3]).mean(3)
        scores = self.choose(means.detach())
        soft = scores.softmax(-1)
        hard = F.one_hot(scores.argmax(-1), 2).to(soft.dtype)
        return torch.where(complete[:, None, :, None], soft + (hard - soft).detach(), 1)

    def _delta(
        self, reads: Tensor, tokens: Tokens, choice: Tensor, complete: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the delta state gives, and the state before the chunk that is not complete."""
        outs = []
        # One split where a slice for each chunk would have a gradient of all tokens each.
        parts = zip(*(torch.split(x, self.block_size, 2) for x in (reads, *tokens[2:])), strict=True)
        for chunk, (query, key, value, decay, beta) in zip(range(complete.shape[1]), parts, strict=False):
            out, after = linear_attention(
                query, key, value, log_decay=decay, beta=beta, initial_state=memory, **self.options
            )
            written = choice[:, :, chunk, 1, None, None]
            faded = decay.sum(2).exp()[..., None, None] * memory
            after = written * after + (1 - written) * faded
            memory = torch.where(complete[:, chunk, None, None, None], after, memory)
            outs.append(out)
        return torch.cat(outs, 2) if outs else tokens.value, memory

    def _keep(self, tokens: Tokens, choice: Tensor, complete: Tensor) -> Kept:
        """Return the tokens for softmax attention, and which of them a head keeps."""
        chunk = torch.arange(tokens.key.shape[2], device=choice.device) // self.block_size
        chosen = _of_tokens(choice[..., 0], chunk)
        keep = (chosen > 0.5) & _of_tokens(complete[:, None], chunk)
        return Kept(tokens.key, tokens.value, keep, torch.where(keep, chosen.clamp(min=0.5), 1).log())


def _of_tokens(choice: Tensor, chunk: Tensor) -> Tensor:
    """Return what was chosen for each token's chunk, (B, H, tokens)."""
    return choice[:, :, chunk] if len(chunk) else choice[:, :, :0]
