"""What a recurrence reads of each token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Streams(NamedTuple):
    """What a recurrence reads of each token; a field that is None takes no part.

    Attributes:
        query: (B, H, N, Dk), what reads the state.
        key: (B, Hk, N, Dk), where to write; Hk divides H, and query head h reads key head h // (H // Hk).
        value: (B, Hk, N, Dv), what to write.
        log_decay: natural logarithm of what the state keeps, at most 0: (H,) for a head, (B, H, N) for a token or
            (B, H, N, Dk) for each channel of a token; None keeps all.
        beta: (B, H, N), how far a write replaces what the state holds at its key, the delta rule; None only adds.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    log_decay: Tensor | None = None
    beta: Tensor | None = None


def without_padding(streams: Streams, keep: Tensor | None) -> Streams:
    """Return streams in which padding writes nothing and forgets nothing."""
    if keep is None:
        return streams
    query, key, value, log_decay, beta = streams
    one, two = keep[:, None], keep[:, None, :, None]
    if log_decay is not None:
        if log_decay.dim() == 1:
            log_decay = log_decay[:, None].expand(query.shape[:3])
        log_decay = torch.where(two if log_decay.dim() == 4 else one, log_decay, 0)
    return Streams(
        query,
        torch.where(two, key, 0),
        torch.where(two, value, 0),
        log_decay,
        None if beta is None else torch.where(one, beta, 0),
    )
