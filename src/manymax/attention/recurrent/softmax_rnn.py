"""Softmax attention as a sum of recurrent networks: its Taylor terms, and what may stand for its denominator."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax._names import closest
from manymax.attention.cache import remember
from manymax.attention.dense.api import attention
from manymax.attention.dense.visibility import make_band
from manymax.attention.linear.features import unit
from manymax.attention.linear.module import with_ones
from manymax.attention.linear.parts import HeadLinear, HeadNorm, per_head
from manymax.attention.linear.recurrence import check_options, linear_attention
from manymax.attention.linear.state import LinearState
from manymax.attention.mechanism import CausalMechanism, Choices
from manymax.attention.options import check_sizes_or_none, value_width
from manymax.attention.recurrent.pair_sums import pair_sums
from manymax.maps.rule import check_option

DENOMINATORS = ("sum", "clamp", "detach", "count", "none")
OUTPUTS = ("none", "gate", "rms", "l2", "layer")
FINITE = 88.0  # a score whose exponential fits float32
RECURRENT = 2  # the highest order whose state, of d^order rows a term, is smaller than a cache of some hundred tokens


class SoftmaxRNN(CausalMechanism):
    r"""Attend with the Taylor terms of softmax, each of which is a linear recurrence, and a choice of denominators.

    $$o_i = f\Bigl(\frac{1}{g_i} \sum_{j \le i} e_p(s_{ij})\, v_j\Bigr), \qquad
    e_p(s) = \sum_{n=0}^{p} \frac{s^n}{n!} = \phi_p(q_i)^\top \phi_p(k_j), \qquad
    s_{ij} = \frac{q_i \cdot k_j}{\sqrt{d}}$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, d is head_dim, p the order, and $\phi_p(x)$ holds the
    Kronecker powers $x^{\otimes n} / (d^{n/4} \sqrt{n!})$ for n = 0 to p, whose outer products with the values are the
    states of the recurrences. Without an order $e_p$ is exp: with the sum of weights as $g_i$ that is softmax. Orders
    up to 2 run as recurrences of constant state, others over all pairs.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        order: p, at least 0; None is exp.
        denominator: $g_i$: "sum", the sum of the row's weights; "clamp", the same but at least 1; "detach", that
            without a gradient; "count", the number of keys the query sees; "none", 1.
        output: f: "none"; "gate", times the logistic function of a learnt map of the token's value, one number a head;
            "rms", over the root mean square, times a learnt gain; "l2", scaled to length 1; "layer", less the mean and
            over the deviation.
        ceiling: largest score where exp stands with any other denominator than "sum", against overflow; None is none.
        value_dim: the last dim of values; None is head_dim. Only gate and "rms" ask for it.
        chunk_size: tokens that a recurrence computes at once; None lets it choose. It changes no result.
        backend: of the recurrence, as in `linear_attention`.

    Raises:
        ValueError: if a name is unknown, the order is negative, or `chunk_size` or `backend` is given beside an order
            that is no recurrence.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("softmax-rnn", head_dim=8, num_heads=2, order=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 8).unbind()
        >>> out, state = attend.prefill(query, key, value)
        >>> state.memory.shape  # 1 + 8 + 64 features, 8 values and the sum of weights
        torch.Size([1, 2, 73, 9])

    Source:
        Mongaras and Larson, 2025, On the Expressiveness of Softmax Attention: A Recurrent Neural Network Perspective,
        arXiv:2507.23632. In the released code the Taylor variant is not normalised, the detached denominator is at
        least 1 as here, and the gated variant has no ceiling.
    """

    family = "recurrent"
    choices = Choices(
        "exp(q · k) on all pairs, or Kronecker powers",
        "none",
        "keeps all tokens, or adds",
        "sum, count, gate or norm",
        "N (Dk + Dv), or (1 + Dk + Dk^2) (Dv + 1) with order 2",
    )
    rotary = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        order: int | None = None,
        denominator: str = "sum",
        output: str = "none",
        ceiling: float | None = 5.0,
        value_dim: int | None = None,
        chunk_size: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        check_sizes_or_none(0, order=order)
        if ceiling is not None:
            check_option("ceiling", ceiling, lambda x: x > -math.inf, "a number or None")
        for name, given, known in (("denominator", denominator, DENOMINATORS), ("output", output, OUTPUTS)):
            if given not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}{closest(given, known)}")
        self.order, self.denominator, self.output, self.ceiling = order, denominator, output, ceiling
        self.options: dict[str, Any] = {"chunk_size": chunk_size, "backend": backend}
        check_options(chunk_size, backend)
        for name, option, default in (("chunk_size", chunk_size, None), ("backend", backend, "auto")):
            if option != default and not self.is_recurrent:
                raise ValueError(
                    f"{name}: expected {default!r} beside order={order}, which is no recurrence, got {option!r}"
                )
        width = value_width(value_dim, head_dim)
        self.fixed_value_dim = width if output in {"gate", "rms"} else None
        self.gate = HeadLinear(num_heads, width, 1, bias=True) if output == "gate" else None
        self.norm = HeadNorm(num_heads, width) if output == "rms" else None

    @property
    def is_recurrent(self) -> bool:
        """Return whether the state has constant size."""
        return self.order is not None and self.order <= RECURRENT

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: Any | None
    ) -> tuple[Tensor, Any]:
        """Return the outputs and the state after the last token: sums of features, or all tokens so far."""
        if self.is_recurrent:
            return self._recur(query, key, value, keep, state)
        cache = remember(None if state is None else state.computed_in(key.dtype), key, value, keep)
        padding = keep if state is None else cache.keep
        return self._finish(self._pairs(query, cache.key, cache.value, padding, is_causal=True), value), cache

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        return self._finish(self._pairs(query, key, value, keep, is_causal=False), value)

    def _recur(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: LinearState | None
    ) -> tuple[Tensor, LinearState]:
        dtype = torch.promote_types(query.dtype, torch.float32)
        features = kronecker_features(key.to(dtype), self.order or 0)
        kept = torch.ones(key.shape[0], key.shape[2], dtype=torch.bool, device=key.device) if keep is None else keep
        features = torch.where(kept[:, None, :, None], features, 0)
        queries = kronecker_features(query.to(dtype), self.order or 0)
        memory = None if state is None else state.memory
        values = with_ones(value.to(dtype))
        both, memory = linear_attention(queries, features, values, initial_state=memory, **self.options)
        start = kept.new_zeros(len(kept), dtype=torch.int64) if state is None else state.length
        count = start[:, None] + kept.cumsum(1)
        out = self._divide(both[..., :-1], both[..., -1:], count[:, None, :, None])
        return self._finish(out.to(query.dtype), value), LinearState(memory, start + kept.sum(1))

    def _pairs(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, *, is_causal: bool) -> Tensor:
        """Return the quotients over all pairs; keep (B, Nk) is False at padding, and the last query at the last key."""
        queries, keys = query.shape[2], key.shape[2]
        if self.order is None and self.denominator == "sum":
            out: Tensor = attention(
                query,
                key,
                value,
                attn_mask=None if keep is None else keep[:, None, None],
                is_causal=is_causal,
                causal_align="bottom-right",
                enable_gqa=key.shape[1] != self.num_heads,
            )
            return out
        dtype = torch.promote_types(query.dtype, torch.float32)
        key, value = per_head(key, self.num_heads).to(dtype), per_head(value, self.num_heads).to(dtype)
        band = make_band(queries, keys, (None, None), is_causal=is_causal, align_last=True)
        sums = pair_sums(self._weigh, query.to(dtype) * self.head_dim**-0.5, key, value, keep, band)
        count = None
        if self.denominator == "count":
            kept = torch.ones(1, keys, dtype=torch.bool, device=key.device) if keep is None else keep
            count = kept.cumsum(1)[:, keys - queries :] if is_causal else kept.sum(1, keepdim=True)
            count = count[:, None, :, None]
        return self._divide(*sums, count).to(query.dtype)

    def _weigh(self, score: Tensor, seen: Tensor | None) -> Tensor:
        """Return the weights, 0 where nothing is seen."""
        if self.order is not None:
            weight = truncated_exp(score, self.order)
        elif self.ceiling is not None and self.ceiling <= FINITE:
            weight = score.clamp(max=self.ceiling).exp()
        else:  # 0 times an infinite weight out of sight would be a gradient of NaN
            score = score if seen is None else torch.where(seen, score, 0)
            weight = (score if self.ceiling is None else score.clamp(max=self.ceiling)).exp()
        return weight if seen is None else torch.where(seen, weight, 0)

    def _divide(self, weighted: Tensor, total: Tensor, count: Tensor | None) -> Tensor:
        """Return the weighted sum over the denominator, 0 where nothing is seen."""
        by = total
        if self.denominator == "none":
            by = torch.ones_like(total)
        elif self.denominator in {"clamp", "detach"}:
            by = total.clamp(min=1)
        elif self.denominator == "count":
            assert count is not None
            by = count
        if self.denominator == "detach":
            by = by.detach()
        return torch.where(by == 0, 0, weighted / torch.where(by == 0, 1, by))

    def _finish(self, out: Tensor, value: Tensor) -> Tensor:
        if self.gate is not None:
            return out * torch.sigmoid(self.gate(value))
        if self.norm is not None:
            normal: Tensor = self.norm(out)
            return normal
        if self.output == "l2":
            return unit(out)
        return F.layer_norm(out, out.shape[-1:]) if self.output == "layer" else out


def kronecker_features(x: Tensor, order: int) -> Tensor:
    r"""Return features whose products are the Taylor terms of exp(q · k / sqrt(d)) up to an order.

    Args:
        x: (..., d).
        order: p; there are 1 + d + ... + d^p features.
    """
    dim = x.shape[-1]
    x = x * dim**-0.25
    powers = [torch.ones_like(x[..., :1])]
    for n in range(1, order + 1):
        powers.append((powers[-1][..., :, None] * x[..., None, :] * n**-0.5).flatten(-2))
    return torch.cat(powers, -1)


def truncated_exp(score: Tensor, order: int) -> Tensor:
    """Return the Taylor polynomial of exp at 0."""
    total = torch.ones_like(score)
    for n in range(order, 0, -1):
        total = 1 + score / n * total
    return total
