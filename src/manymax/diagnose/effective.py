"""The weights that a mechanism without a map gives its values in effect, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.nats_l import NAtSLinear
from manymax.attention.linear.parts import per_head, widened
from manymax.attention.linear.recurrence import linear_attention
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import blank, padding
from manymax.diagnose.tile import Tile

WIDTH = 64  # rows of a recurrence's weights that one backward pass gives


class Call(NamedTuple):
    """One call of a mechanism that has been answered.

    Attributes:
        query: (B, H, Nq, D).
        key: (B, Hk, Nk, D).
        value: (B, Hk, Nk, Dv).
        output: (B, H, Nq, Dv).
        options: the call's other arguments.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    options: dict[str, Any]

    @property
    def is_causal(self) -> bool:
        """Return whether a query sees no key after its own position."""
        return bool(self.options.get("is_causal", False))

    @property
    def keep(self) -> Tensor | None:
        """Return which keys are no padding, (B, Nk)."""
        return padding(self.options.get("attn_mask"), self.key)


class Seen(NamedTuple):
    """What can be seen of a call.

    Attributes:
        tiles: its weights, each row over the sum of its absolute values; None if there are none.
        said: what these weights are, or why there are none, in a sentence.
        streams: what a recurrence read; None for another rule.
    """

    tiles: Iterator[Tile] | None
    said: str
    streams: Streams | None = None


@torch.no_grad()
def look(mechanism: nn.Module, call: Call) -> Seen:
    r"""Return the weights that make a call's outputs sums of values, if there are any.

    $$o_i = \sum_j A_{ij} v_j, \qquad A_{ij} = \frac{\partial o_{ic}}{\partial v_{jc}} \text{ in any channel } c$$

    Rows come from one backward pass each for as many as values have channels: row i is the gradient of channel c of
    output i, with another channel for each row, so that no more than those rows are ever held. A recurrence, whose norm
    and gate come after it and are not linear, is taken by itself; any other mechanism is taken whole, and has weights
    only if its outputs are those sums.
    """
    if call.options.get("cu_seqlens") is not None:
        return Seen(None, "The sequences of a packed row are not told apart.")
    # A decay that only keeps features from underflow is no forgetting: the state is given at its last scale.
    final, streams = (_streams(mechanism, call, whole=whole) for whole in (True, not call.is_causal))
    if streams is not None and (call.is_causal or (streams.log_decay is None and streams.beta is None)):
        said = "Weights of the recurrence on what it reads, before any norm or gate, over the sum of their sizes."
        return Seen(_recurrence(streams, call), said, final)
    seen = _whole(mechanism, call)
    return seen if streams is None else seen._replace(streams=final)


def _streams(mechanism: nn.Module, call: Call, *, whole: bool) -> Streams | None:
    """Return what a recurrence reads, with a key and a value for each head; None for another rule."""
    if not isinstance(mechanism, LinearAttention) or isinstance(mechanism, NAtSLinear):
        return None  # NAtS-L has kept chunks beside its recurrence
    if not call.is_causal and mechanism.conv is not None:
        return None
    keep = call.keep
    tokens = blank(call.query, call.key, call.value, keep)
    streams, _, _, _ = mechanism.prepared(*tokens, keep, None, whole=whole)
    heads = streams.query.shape[1]
    return Streams(
        widened(streams.query),
        widened(per_head(streams.key, heads)),
        widened(per_head(streams.value, heads)),
        streams.log_decay,
        streams.beta,
    )


def _recurrence(streams: Streams, call: Call) -> Iterator[Tile]:
    """Yield the weights of a recurrence."""
    query, key = streams.query, streams.key
    if not call.is_causal:
        for start in range(0, query.shape[2], WIDTH):
            yield _tile(start, query[:, :, start : start + WIDTH] @ key.mT, call)
        return
    value = query.new_zeros(*key.shape[:3], WIDTH).requires_grad_()
    with torch.enable_grad():
        out, _ = linear_attention(query, key, value, log_decay=streams.log_decay, beta=streams.beta)
    for start in range(0, query.shape[2], WIDTH):
        yield _tile(start, _rows(out, value, start), call)


def _whole(mechanism: nn.Module, call: Call) -> Seen:
    """Return the weights of any mechanism that is linear in its values."""
    heads = call.query.shape[1]
    key, value = per_head(call.key, heads), per_head(call.value, heads).detach().clone().requires_grad_()
    with torch.enable_grad():
        out = mechanism.forward(call.query.detach(), key.detach(), value, **call.options)
    width = value.shape[3]
    starts = range(0, out.shape[2], width)
    last = starts[-1]
    rows = _rows(out, value, last)
    wanted, made, size = out[:, :, last:], rows @ value, rows.abs() @ value.abs()
    if bool(((wanted - made).abs() > torch.finfo(out.dtype).eps ** 0.5 * (size + wanted.abs())).any()):
        name = type(mechanism).__name__
        return Seen(None, f"{name} gives no sums of values by weights: a norm, a gate or a convolution comes between.")
    tiles = (_tile(start, _rows(out, value, start), call) for start in starts)
    return Seen(tiles, "Weights in effect: the gradient of outputs in their values, over the sum of their sizes.")


def _rows(out: Tensor, value: Tensor, start: int) -> Tensor:
    """Return the derivatives of outputs from `start` on, as many as values have channels, (B, H, n, Nk)."""
    stop = min(start + value.shape[3], out.shape[2])
    chosen = torch.zeros_like(out)
    chosen[:, :, range(start, stop), range(stop - start)] = 1
    (found,) = torch.autograd.grad(out, value, chosen, retain_graph=True)
    return found[..., : stop - start].mT


def _tile(start: int, weights: Tensor, call: Call) -> Tile:
    """Return a tile with rows over the sums of their absolute values."""
    count, keys = weights.shape[2:]
    visible = torch.ones(1, 1, count, keys, dtype=torch.bool, device=weights.device)
    visible = visible.tril(start) if call.is_causal else visible
    keep = call.keep
    visible = visible if keep is None else visible & keep[:, None, None, :]
    total = weights.abs().sum(-1, keepdim=True)
    shares = torch.where(total > 0, weights / torch.where(total > 0, total, 1), 0)
    return Tile(start, shares, None, visible, call.output[:, :, start : start + count])
