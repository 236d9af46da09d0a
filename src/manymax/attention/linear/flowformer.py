"""Flowformer: linear attention in which what flows into queries and out of keys is conserved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from manymax.attention.linear.features import feature_map as find_feature_map
from manymax.attention.linear.grid import kept, number, widen
from manymax.attention.linear.parts import per_head
from manymax.attention.linear.recurrence import check_options, linear_attention
from manymax.attention.mechanism import CausalMechanism, Choices
from manymax.attention.options import check_positive
from manymax.attention.state import State
from manymax.maps.softmax import softmax

EPS = 1e-6


@dataclass(frozen=True)
class FlowState(State):
    """What the causal form keeps; all sums are in float32 at least.

    Attributes:
        memory: sum of features of keys times values that won, (B, H, D, Dv).
        keys: sum of features of keys, (B, H, D).
        queries: sum of features of queries, (B, H, D).
        sources: sum of features of keys over their outgoing flow, (B, H, D).
        sinks: sum of features of queries over their incoming flow, (B, H, D).
        strength: sum over tokens of exp of a source's conserved flow, (B, H).
        length: tokens so far, (B,).
    """

    memory: Tensor
    keys: Tensor
    queries: Tensor
    sources: Tensor
    sinks: Tensor
    strength: Tensor
    length: Tensor


class Flowformer(CausalMechanism):
    r"""Attend with products of features whose flows compete among keys and are allotted to queries.

    $$o_i = \sigma\Bigl(\hat{I}_i \tfrac{n}{m}\Bigr) \frac{\phi(q_i)^\top}{I_i} \sum_j \phi(k_j) C_j v_j^\top, \qquad
    C = m\, \mathrm{softmax}(\hat{O}), \quad I_i = \phi(q_i) \cdot \sum_j \phi(k_j), \quad
    O_j = \phi(k_j) \cdot \sum_i \phi(q_i), \quad \hat{I}_i = \phi(q_i) \cdot \sum_j \frac{\phi(k_j)}{O_j}, \quad
    \hat{O}_j = \phi(k_j) \cdot \sum_i \frac{\phi(q_i)}{I_i}$$

    where $q_i$, $k_j$ and $v_j$ are n queries, m keys and values, $\phi$ is the feature map, $\sigma$ the logistic
    function, I what flows into a query and O out of a key, $\hat{I}$ and $\hat{O}$ the same when what the other side
    gives is one each, and $\hat{O}$ is cut to the range from -`limit` to `limit`. 1e-6 is added to both sides of the
    products in I, O, $\hat{I}$ and $\hat{O}$.

    In the causal form all sums go up to the token t itself, each from what was known at its time: 1/I and 1/O are
    multiplied by t inside $\hat{O}$ and $\hat{I}$, these are divided by t, n/m is 1, and $C_t = t\, e^{\hat{O}_t} /
    \sum_{s \le t} e^{\hat{O}_s}$.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        feature_map: "sigmoid", "relu" (plus 1e-6, as the authors have it in Long Range Arena), or any other of "elu",
            "exp", "identity", "leaky_relu", "silu" and "squared_relu"; flows need features above 0.
        limit: of $\hat{O}$; 1 in most of the authors' code, 10 in reinforcement learning, 5 in translation.
        chunk_size: tokens computed at once; None lets the form choose. It changes no result.
        backend: as in `linear_attention`.

    Raises:
        ValueError: if the feature map is unknown, the limit is not positive, or an option's value is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("flowformer", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> state.memory.shape
        torch.Size([1, 2, 16, 16])

    Source:
        Wu et al., 2022, Flowformer: Linearizing Transformers with Conservation Flows, arXiv:2202.06258; the causal form
        and 1e-6 as in the authors' code, which sums one matrix a token where here a state is carried.
    """

    family: ClassVar[str] = "linear"
    choices = Choices(
        "sigmoid", "none", "adds", "incoming flow", "Dk (Dv + 4) + 1", "softmax over sources, gate of sinks"
    )
    rotary = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        feature_map: str = "sigmoid",
        limit: float = 1.0,
        chunk_size: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        check_positive(limit=limit)
        self.feature_map, self.limit = find_feature_map(feature_map), limit
        self.shift = EPS if feature_map == "relu" else 0.0
        self.options: dict[str, Any] = {"chunk_size": chunk_size, "backend": backend}
        check_options(chunk_size, backend)

    def features(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
        """Return features and values of one head for each query head; those of padding are zero."""
        q, k, v = widen(query, key, value)
        q, k = self.feature_map(q) + self.shift, kept(self.feature_map(k) + self.shift, keep)
        q = kept(q, keep) if query.shape[2] == key.shape[2] else q
        return q, per_head(k, self.num_heads), per_head(v, self.num_heads)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        q, k, v = self.features(query, key, value, keep)
        sinks, sources = number(q, keep if query.shape[2] == key.shape[2] else None), number(k, keep)
        inverse_in, inverse_out = 1 / flow(q, k.sum(2, keepdim=True)), 1 / flow(k, q.sum(2, keepdim=True))
        incoming = flow(q, (k * inverse_out).sum(2, keepdim=True))
        outgoing = flow(k, (q * inverse_in).sum(2, keepdim=True)).clamp(-self.limit, self.limit)
        mask = None if keep is None else keep[:, None, :, None]
        competing = softmax(outgoing, 2, mask=mask) * sources
        out = (q * inverse_in) @ (k.transpose(2, 3) @ (competing * v))
        return (torch.sigmoid(incoming * (sinks / sources)) * out).to(query.dtype)

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: FlowState | None
    ) -> tuple[Tensor, FlowState]:
        """Return the outputs and the state after the last token."""
        q, k, v = self.features(query, key, value, keep)
        old = empty(k, v) if state is None else state
        steps = torch.ones_like(k[:, 0, :, 0], dtype=torch.int64) if keep is None else keep.to(torch.int64)
        count = (old.length[:, None] + steps.cumsum(1)).clamp(min=1).to(q.dtype)[:, None, :, None]
        inverse_in = 1 / flow(q, running(k, old.keys))
        inverse_out = 1 / flow(k, running(q, old.queries))
        source, sink = k * inverse_out * count, q * inverse_in * count
        incoming = flow(q, running(source, old.sources)) / count
        outgoing = (flow(k, running(sink, old.sinks)) / count).clamp(-self.limit, self.limit)
        strength = kept(outgoing.exp(), keep)
        total = running(strength, old.strength[..., None])
        competing = strength * count / torch.where(total == 0, 1, total)
        out, memory = linear_attention(q * inverse_in, k, competing * v, initial_state=old.memory, **self.options)
        state = FlowState(
            memory,
            old.keys + k.sum(2),
            old.queries + q.sum(2),
            old.sources + source.sum(2),
            old.sinks + sink.sum(2),
            old.strength + strength.sum((2, 3)),
            old.length + steps.sum(1),
        )
        return (torch.sigmoid(incoming) * out).to(query.dtype), state


def flow(x: Tensor, total: Tensor) -> Tensor:
    """Return products of each token with a total, (B, H, N, 1), with 1e-6 added on both sides."""
    return ((x + EPS) * (total + EPS)).sum(-1, keepdim=True)


def running(x: Tensor, before: Tensor) -> Tensor:
    """Return sums of x (B, H, N, D) up to each token, those of the tokens before it, (B, H, D), included."""
    return x.cumsum(2) + before[:, :, None]


def empty(k: Tensor, v: Tensor) -> FlowState:
    """Return the state of no tokens."""
    none = k.new_zeros(*k.shape[:2], k.shape[3])
    memory = k.new_zeros(*none.shape, v.shape[3])
    length = torch.zeros(len(k), dtype=torch.int64, device=k.device)
    return FlowState(memory, none, none, none, none, none.sum(2), length)
