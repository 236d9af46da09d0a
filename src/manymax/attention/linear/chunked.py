"""The recurrence by chunks: pairs within a chunk as matrix products, the state carried from chunk to chunk."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.linear.streams import Streams

FORGET = -1e4  # stands for -inf: its exp is 0 in every dtype, and differences of sums of it are numbers
BLOCK = 16  # tokens between two of which channels' decays are formed one by one


class Decays(NamedTuple):
    """Factors from sums of log decays, all at most 1; each (B, H, chunks, tokens, 1 or Dk) but the last.

    Attributes:
        sums: sums from the chunk's start to each token, itself included, in float64.
        since_start: what a token still sees of the state before the chunk.
        to_end: what the state after the chunk keeps of a token.
        whole: what the state after the chunk keeps of the one before, (B, H, chunks, 1 or Dk, 1).
    """

    sums: Tensor
    since_start: Tensor
    to_end: Tensor
    whole: Tensor


def chunked(streams: Streams, state: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, H, N, Dv) and the final state.

    Args:
        streams: `Streams` of one dtype, with a key and a value for each query head and decays (B, H, N, 1 or Dk).
        state: (B, H, Dk, Dv).
        chunk_size: tokens of a chunk; N makes it the quadratic form.
    """
    tokens = streams.query.shape[2]
    size = min(chunk_size, tokens)
    query, key, value = _split(streams.query, size), _split(streams.key, size), _split(streams.value, size)
    decays = None if streams.log_decay is None else _decays(_split(streams.log_decay, size))
    scores = _scores(query, key, decays)
    reads, writes, onward = query, key, None
    if decays is not None:
        reads, writes, onward = query * decays.since_start, key * decays.to_end, decays.whole
    if streams.beta is None:
        added = writes.transpose(3, 4) @ value
        before, state = _carry(added, onward, state)
        out = reads @ before + scores @ value
    else:
        value, erased = _delta(key, value, _split(streams.beta, size), decays)
        out, state = _carry_delta(reads, scores, writes, value, erased, onward, state)
    return out.flatten(2, 3)[:, :, :tokens], state


def _split(x: Tensor, size: int) -> Tensor:
    """Return (B, H, chunks, size, ...); zeros behind the last token neither write, decay nor matter."""
    missing = -x.shape[2] % size
    padded = F.pad(x, (0, 0) * (x.dim() - 3) + (0, missing)) if missing else x
    return padded.reshape(*x.shape[:2], -1, size, *x.shape[3:])


def _decays(log_decay: Tensor) -> Decays:
    """Return the factors. Sums are in float64: a difference of two large ones is then still good to 1e-9."""
    sums = log_decay.double().clamp(min=FORGET).cumsum(3)
    last = sums[:, :, :, -1:]
    dtype = log_decay.dtype
    return Decays(sums, sums.to(dtype).exp(), (last - sums).to(dtype).exp(), last.to(dtype).exp().transpose(3, 4))


def _scores(query: Tensor, key: Tensor, decays: Decays | None) -> Tensor:
    """Return q_i · (decay from j to i ⊙ k_j) for j <= i, else 0: (B, H, chunks, size, size)."""
    if decays is not None and decays.sums.shape[-1] > 1:
        return _channel_scores(query, key, decays.sums)
    scores = query @ key.transpose(3, 4)
    return (scores if decays is None else scores * _between(decays.sums, scores.dtype)).tril()


def _between(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the decay from token j to token i, where j <= i, of scalar decays; finite elsewhere."""
    return (sums - sums.transpose(3, 4)).clamp(max=0).to(dtype).exp()


def _channel_scores(query: Tensor, key: Tensor, sums: Tensor) -> Tensor:
    """Return the scores if each channel decays by itself.

    They are q_i exp(s_i - r) · k_j exp(r - s_j) with any r. Both exponents are at most 0 if r is the sum just before
    the block of i, and j stands before that block. Within a block each channel's difference is formed by itself.
    """
    size, dtype = query.shape[3], query.dtype
    rows = []
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        here, q = sums[:, :, :, start:stop], query[:, :, :, start:stop]
        apart = (here[:, :, :, :, None] - here[:, :, :, None]).clamp(max=0).to(dtype).exp()
        within = torch.einsum("bhcid,bhcjd,bhcijd->bhcij", q, key[:, :, :, start:stop], apart).tril()
        parts = [within, within.new_zeros(*within.shape[:-1], size - stop)]
        if start:
            before = sums[:, :, :, start - 1 : start]
            k = key[:, :, :, :start] * (before - sums[:, :, :, :start]).to(dtype).exp()
            parts.insert(0, (q * (here - before).to(dtype).exp()) @ k.transpose(3, 4))
        rows.append(torch.cat(parts, -1))
    return torch.cat(rows, 3)


def _carry(added: Tensor, onward: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk (B, H, chunks, Dk, Dv), and the one after the last."""
    before = []
    for chunk in range(added.shape[2]):
        before.append(state)
        state = added[:, :, chunk] + (state if onward is None else onward[:, :, chunk] * state)
    return torch.stack(before, 2), state


def _delta(key: Tensor, value: Tensor, beta: Tensor, decays: Decays | None) -> tuple[Tensor, Tensor]:
    """Return what a chunk writes if the state before it is 0, and what it writes less for each row of that state.

    u_i = beta_i (v_i - decayed k_i · S), where S holds the u_j of all j < i: a triangular system with one right side
    for values and one for the state before the chunk.
    """
    overlap = key @ key.transpose(3, 4)
    if decays is not None:
        overlap = overlap * _between(decays.sums, overlap.dtype)
    system = (beta[..., None] * overlap).tril(-1)  # the diagonal counts as 1
    reads = key if decays is None else key * decays.since_start
    right = beta[..., None] * torch.cat([value, reads], -1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    written, erased = solved.split([value.shape[-1], key.shape[-1]], -1)
    return written, erased


def _carry_delta(
    reads: Tensor,
    scores: Tensor,
    writes: Tensor,
    value: Tensor,
    erased: Tensor,
    onward: Tensor | None,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    outs = []
    for chunk in range(value.shape[2]):
        written = value[:, :, chunk] - erased[:, :, chunk] @ state
        outs.append(reads[:, :, chunk] @ state + scores[:, :, chunk] @ written)
        kept = state if onward is None else onward[:, :, chunk] * state
        state = kept + writes[:, :, chunk].transpose(2, 3) @ written
    return torch.stack(outs, 2), state
