"""Sums over keys with weights that depend on the distance, times products of features, by FFT: no pairs are formed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAF = 512  # tokens within which pairs are formed: up to there products of matrices are faster than transforms
NUMBERS = 2**23  # of the products of features and values that are transformed at once, 32 MiB in float32


def between_all(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Return sums over all j of weights[j - i] (q_i · k_j) v_j, (B, H, Nq, Dv).

    Each feature of keys times values is a signal along the tokens, which a Toeplitz matrix multiplies: a convolution of
    length Nq + Nk, in n log n.

    Args:
        query: features (B, H, Nq, m).
        key: features (B, H, Nk, m).
        value: (B, H, Nk, Dv).
        weights: of the distances j - i from -(Nq - 1) to Nk - 1 in this order, (H, Nq + Nk - 1).
    """
    queries, keys = query.shape[2], key.shape[2]
    size = queries + keys
    # y_i = sum_j c_{i-j} x_j with c_t at place t of a circle, negative t at its end
    after, before = weights[:, :queries].flip(1), weights[:, queries:].flip(1)
    circle = torch.fft.rfft(torch.cat([after, weights.new_zeros(len(weights), 1), before], 1), dim=1)
    return _by_features(query, key, value, circle, size, slice(0, queries))


def between_causal(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Return sums over j <= i of weights[i - j] (q_i · k_j) v_j, (B, H, N, Dv).

    Tokens are halved again and again: the left half reaches the right one by FFT, so that no rounding carries a later
    token into an earlier output. That costs n log² n.

    Args:
        query: features (B, H, N, m).
        key: features (B, H, N, m).
        value: (B, H, N, Dv).
        weights: of the distances i - j from 0 to N - 1, (H, N).
    """
    tokens, size = query.shape[2], LEAF
    whole = LEAF
    while whole < tokens:
        whole *= 2
    query, key, value = (F.pad(x, (0, 0, 0, whole - tokens)) for x in (query, key, value))
    weights = F.pad(weights, (0, whole - tokens))
    out = _leaves(query, key, value, weights)
    while size < whole:
        circle = torch.fft.rfft(weights[:, : 2 * size], dim=1)
        left, right = (slice(0, size), slice(size, 2 * size))
        (q, k, v) = (_blocks(x, 2 * size) for x in (query, key, value))
        reached = _by_features(q[:, :, :, right], k[:, :, :, left], v[:, :, :, left], circle[:, None], 2 * size, right)
        out = out + F.pad(reached, (0, 0, size, 0)).flatten(2, 3)
        size *= 2
    return out[:, :, :tokens]


def pairs(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Return the sums of `between_all` with weights (H, Nq, Nk), or (..., H, 1, Nq, Nk) for blocks, pair by pair."""
    return (query @ key.transpose(-2, -1) * weights) @ value


def near(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Return sums over the W keys up to a query's own of weights[distance] (q_i · k_j) v_j, (B, H, N, Dv).

    Pairs are formed in blocks of W queries, which see their own block and the one before.

    Args:
        query: features (B, H, N, m).
        key: features (B, H, W + N, m), those of the W tokens before the queries' own first.
        value: (B, H, W + N, Dv).
        weights: of the distances i - j from 0 to W - 1, (H, W).
    """
    window, tokens = weights.shape[1], query.shape[2]
    missing = -tokens % window
    query, key, value = (F.pad(x, (0, 0, 0, missing)) for x in (query, key, value))
    place = torch.arange(2 * window, device=query.device)
    distance = place[window:, None] - place
    seen = (distance >= 0) & (distance < window)
    within = torch.where(seen, weights[:, distance.clamp(0, window - 1)], 0)
    k, v = (x.unfold(2, 2 * window, window).transpose(3, 4) for x in (key, value))
    return pairs(_blocks(query, window), k, v, within[:, None]).flatten(2, 3)[:, :, :tokens]


def _leaves(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """Return the sums within blocks of LEAF tokens."""
    place = torch.arange(LEAF, device=query.device)
    distance = place[:, None] - place
    within = torch.where(distance >= 0, weights[:, distance.clamp(min=0)], 0)
    q, k, v = (_blocks(x, LEAF) for x in (query, key, value))
    return pairs(q, k, v, within[:, None]).flatten(2, 3)


def _blocks(x: Tensor, size: int) -> Tensor:
    """Return (B, H, blocks, size, D)."""
    return x.reshape(*x.shape[:2], -1, size, x.shape[3])


def _by_features(query: Tensor, key: Tensor, value: Tensor, circle: Tensor, size: int, read: slice) -> Tensor:
    """Return sums over features of q_i times a circular convolution of k_j v_j, some features at a time.

    Args:
        query: (..., tokens read, m).
        key: (..., tokens, m).
        value: (..., tokens, Dv).
        circle: the transform of the weights, (H, frequencies), or with more dims (H, 1, frequencies).
        size: of the circle.
        read: the places that are read.
    """
    features = key.shape[-1]
    step = max(1, NUMBERS // max(1, value[..., 0].numel() * value.shape[-1] * size // max(key.shape[-2], 1)))
    out = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for start in range(0, features, step):
        part = slice(start, start + step)
        signals = key[..., part, None] * value[..., None, :]  # (..., tokens, features, Dv)
        spectrum = torch.fft.rfft(signals, n=size, dim=-3) * circle[..., None, None]
        reached = torch.fft.irfft(spectrum, n=size, dim=-3)[..., read, :, :]
        out = out + (query[..., part, None] * reached).sum(-2)
    return out
