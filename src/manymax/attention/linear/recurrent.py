"""The recurrence token by token, as papers write it: the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from manymax.attention.linear.streams import Streams


def recurrent(streams: Streams, state: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, H, N, Dv) and the final state.

    Args:
        streams: `Streams` of one dtype, with a key and a value for each query head and decays (B, H, N, 1 or Dk).
        state: (B, H, Dk, Dv).
        chunk_size: not used, since each token is a chunk of its own.
    """
    del chunk_size
    query, key, value, log_decay, beta = streams
    outs = []
    for t in range(query.shape[2]):
        k, write = key[:, :, t, :, None], value[:, :, t, None, :]  # a column and a row
        if log_decay is not None:
            state = state * log_decay[:, :, t, :, None].exp()
        if beta is not None:
            held = (k * state).sum(2, keepdim=True)
            write = beta[:, :, t, None, None] * (write - held)
        state = state + k * write
        outs.append((query[:, :, t, :, None] * state).sum(2))
    return torch.stack(outs, 2), state
