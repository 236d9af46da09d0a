"""Weighted least squares as the tokens come: what the best linear map from keys to values says at each query."""

from __future__ import annotations

import torch
from torch import Tensor

from manymax.attention.linear.recurrence import linear_attention

CHUNK = 32  # tokens whose matrices (D, D) exist at once
FORGET = -1e4  # stands for -inf, so that differences of sums of log decays are numbers


def least_squares(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    gram: Tensor,
    memory: Tensor | None,
    form: str = "chunked",
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return $C_t A_t^{-1} q_t$ with $A_t = g_t A_{t-1} + k_t k_t^\top$ and $C_t = g_t C_{t-1} + v_t k_t^\top$.

    Args:
        query: (B, H, N, D), floating of at least 32 bits, as all others.
        key: (B, H, N, D).
        value: (B, H, N, Dv).
        log_decay: logarithm of $g_t$, (B, H, N); None is no forgetting.
        gram: $A_0$, (B, H, D, D), symmetric and positive definite.
        memory: $C_0$ transposed, (B, H, D, Dv); None is zero.
        form: "chunked" solves a system a token, "woodbury" updates inverse and map by their change of rank one.

    Returns:
        The outputs (B, H, N, Dv), and the last A and transposed C.
    """
    if form == "woodbury":
        return _woodbury(query, key, value, log_decay, gram, memory)
    solved = []
    for start in range(0, query.shape[2], CHUNK):
        here = slice(start, start + CHUNK)
        grams = _grams(key[:, :, here], None if log_decay is None else log_decay[:, :, here], gram)
        factor = torch.linalg.cholesky(grams)
        solved.append(torch.cholesky_solve(query[:, :, here, :, None], factor)[..., 0])
        gram = grams[:, :, -1]
    reads = torch.cat(solved, 2) if solved else query
    out, memory = linear_attention(reads, key, value, log_decay=log_decay, initial_state=memory)
    return out, gram, memory


def _grams(key: Tensor, log_decay: Tensor | None, gram: Tensor) -> Tensor:
    """Return A after each token, (B, H, N, D, D)."""
    outer = key[..., :, None] * key[..., None, :]
    if log_decay is None:
        return gram[:, :, None] + outer.cumsum(2)
    sums = log_decay.clamp(min=FORGET).cumsum(2)
    since = (sums[..., :, None] - sums[..., None, :]).clamp(max=0).exp().tril()
    return torch.einsum("bhij,bhjde->bhide", since, outer) + sums.exp()[..., None, None] * gram[:, :, None]


def _woodbury(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, gram: Tensor, memory: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Recursive least squares: M is the map C A^-1, P the inverse of A."""
    if memory is None:
        memory = gram.new_zeros(*gram.shape[:3], value.shape[3])
    inverse = torch.linalg.inv(gram)
    best = (inverse @ memory).transpose(2, 3)
    outs = []
    for t in range(query.shape[2]):
        k, v = key[:, :, t, :, None], value[:, :, t, :, None]
        if log_decay is not None:
            decay = log_decay[:, :, t, None, None].exp()
            inverse, gram, memory = inverse / decay, gram * decay, memory * decay
        gain = inverse @ k / (1 + k.transpose(2, 3) @ inverse @ k)  # P k with P after this token
        best = best + (v - best @ k) @ gain.transpose(2, 3)
        inverse = inverse - gain @ (k.transpose(2, 3) @ inverse)
        gram, memory = gram + k @ k.transpose(2, 3), memory + k @ v.transpose(2, 3)
        outs.append(best @ query[:, :, t, :, None])
    out = torch.stack(outs, 2)[..., 0] if outs else query.new_zeros(*query.shape[:3], value.shape[3])
    return out, gram, memory
