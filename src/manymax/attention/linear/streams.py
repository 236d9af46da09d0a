"""What a recurrence reads of each token."""

from __future__ import annotations

from typing import NamedTuple

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
