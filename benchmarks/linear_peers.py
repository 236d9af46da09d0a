"""The linear recurrence in plain PyTorch, by chunks: what the native kernels are compared with.

Everything that chunks do not have in common goes through one batched product each; sizes of chunks are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

SIZES = (64, 128, 256)  # chunks that the best peer is chosen from


def chunks(size: int, *tensors: Tensor) -> list[Tensor]:
    """Return (B, H, N, ...) as (B H, chunks, size, ...)."""
    return [x.reshape(x.shape[0] * x.shape[1], -1, size, *x.shape[3:]) for x in tensors]


def plain(query: Tensor, key: Tensor, value: Tensor, size: int) -> Tensor:
    """Return causal linear attention: the states before all chunks are one cumulative sum."""
    q, k, v = chunks(size, query, key, value)
    added = k.mT @ v
    states = added.cumsum(1) - added
    weights = (q @ k.mT).tril()
    out = torch.baddbmm((weights @ v).flatten(0, 1), q.flatten(0, 1), states.flatten(0, 1))
    return out.view(*query.shape[:3], value.shape[3])


def between(logs: Tensor) -> Tensor:
    """Return exp of the sums of `logs` behind j up to i, (..., n) to (..., n, n), and 0 where j > i."""
    sums = logs.cumsum(-1)
    above = torch.ones(logs.shape[-1], logs.shape[-1], dtype=torch.bool).triu(1)
    return (sums[..., :, None] - sums[..., None, :]).masked_fill(above, -torch.inf).exp()


def decayed(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, size: int) -> Tensor:
    """Return the same with a decay for each token; states of chunks are a product with the decays between chunks."""
    q, k, v, logs = chunks(size, query, key, value, log_decay)
    sums = logs.cumsum(-1)
    added = (k * (sums[..., -1:] - sums).exp()[..., None]).mT @ v
    whole = between(torch.nn.functional.pad(sums[..., -1], (1, 0))[..., :-1])
    before = torch.nn.functional.pad(added, (0, 0, 0, 0, 1, 0))[:, :-1]
    states = (whole @ before.flatten(2)).view_as(added)
    weights = (q @ k.mT) * between(logs)
    read = q * sums.exp()[..., None]
    out = torch.baddbmm((weights @ v).flatten(0, 1), read.flatten(0, 1), states.flatten(0, 1))
    return out.view(*query.shape[:3], value.shape[3])


def delta(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, beta: Tensor, size: int) -> Tensor:
    """Return the gated delta rule: one batched triangular solve, then chunk by chunk with the state."""
    q, k, v, logs, b = chunks(size, query, key, value, log_decay, beta)
    sums = logs.cumsum(-1)
    decays = between(logs)
    lower = (k @ k.mT * decays).tril(-1) * b[..., None]
    both = torch.cat([v, k * sums.exp()[..., None]], -1) * b[..., None]
    unit = lower + torch.eye(size)
    values, known = torch.linalg.solve_triangular(unit, both, upper=False, unitriangular=True).split(
        [v.shape[-1], k.shape[-1]], -1
    )
    weights = (q @ k.mT) * decays
    read, kept = q * sums.exp()[..., None], k * (sums[..., -1:] - sums).exp()[..., None]
    state = q.new_zeros(q.shape[0], q.shape[-1], v.shape[-1])
    outs = []
    for i in range(q.shape[1]):
        written = values[:, i] - known[:, i] @ state
        outs.append(torch.baddbmm(weights[:, i] @ written, read[:, i], state))
        state = torch.baddbmm(state * sums[:, i, -1, None, None].exp(), kept[:, i].mT, written)
    return torch.stack(outs, 1).view(*query.shape[:3], value.shape[3])


def rows_delta(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, beta: Tensor, size: int = 64) -> Tensor:
    """Return the same as transformers computes it: the inverse of the triangular matrix row by row."""
    q, k, v, logs, b = chunks(size, query, key, value, log_decay, beta)
    sums, decays = logs.cumsum(-1), between(logs)
    lower = -(k @ k.mT * decays).tril(-1) * b[..., None]
    for i in range(1, size):
        row = lower[..., i, :i].clone()
        found = row + (row[..., None] * lower[..., :i, :i].clone()).sum(-2)
        lower[..., i, :i] = found
    inverse = lower + torch.eye(size)
    values, known = inverse @ (v * b[..., None]), inverse @ (k * (b * sums.exp())[..., None])
    state = q.new_zeros(q.shape[0], q.shape[-1], v.shape[-1])
    out = torch.zeros_like(v)
    for i in range(q.shape[1]):
        written = values[:, i] - known[:, i] @ state
        weights = q[:, i] @ k[:, i].mT * decays[:, i]
        out[:, i] = (q[:, i] * sums[:, i, :, None].exp()) @ state + weights @ written
        kept = k[:, i] * (sums[:, i, -1:] - sums[:, i]).exp()[..., None]
        state = state * sums[:, i, -1, None, None].exp() + kept.mT @ written
    return out.view(*query.shape[:3], value.shape[3])


def transformers_delta() -> tuple[str, Callable[..., Tensor]]:
    """Return transformers' gated delta rule and its name, or the same algorithm where that is not installed."""
    try:
        module: Any = import_module("transformers.models.qwen3_next.modeling_qwen3_next")
    except ImportError:
        return "the same algorithm, transformers is not installed", rows_delta

    def call(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
        folded = [x.transpose(1, 2) for x in (query * query.shape[-1] ** 0.5, key, value, log_decay, beta)]
        out: Tensor = module.torch_chunk_gated_delta_rule(*folded)[0]
        return out.transpose(1, 2)

    return "torch_chunk_gated_delta_rule", call
