"""Normalised attention: linear attention whose denominator is a learnt function of the token alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from manymax._names import closest
from manymax.attention.linear.features import identity
from manymax.attention.linear.linear import features_of
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import HeadLinear, widened
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices


def log_softplus(x: Tensor) -> Tensor:
    """Return log(log(1 + e^x))."""
    return F.softplus(x).log()


# Logarithms of eta for what the linear map gives, by functions that can be pickled.
NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": identity,
    "softplus": log_softplus,
    "sigmoid": F.logsigmoid,
}


class NormalisedAttention(LinearAttention):
    r"""Attend with products of features, divided by a learnt function of the token instead of the sum of weights.

    $$y_i = \frac{\phi(q_i)^\top \sum_{j \le i} \phi(k_j) v_j^\top}{\eta(u_i)}, \qquad \eta(u) = e^{w_h \cdot u + b_h}$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values, $\phi$ is the feature map, and $w_h$ and $b_h$ are a
    head's learnt map of the token's features, for which its value stands here. Without a causal mask the sum runs over
    all j. `manymax.attention.recurrent.dynamical_system` has the paper's common form of attention, state spaces and
    gated networks, and the converters to it.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        feature_map: "identity", or any other of `linear`. Those of "favor" are all 0 for a query or key much longer
            than 16 head_dim^(1/4) (45 for head_dim = 64) in float32, since no sum of weights divides a factor out.
        normaliser: "exp", $e^x$; "softplus", $\log(1 + e^x)$; "sigmoid", $1 / (1 + e^{-x})$, of the linear map.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of the linear family.

    Raises:
        ValueError: if the feature map, the normaliser or an option's value is unknown.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("dsf", head_dim=16, num_heads=2, feature_map="elu")
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Sieber et al., 2024, Understanding the differences in Foundation Models: Attention, State Space Models, and
        Recurrent Neural Networks, arXiv:2405.15731; $\eta$ a head, its three functions and the identity as feature map
        are those of the authors' code (jsie7/ssm-benchmark, models/transformer.py).
    """

    choices = Choices("identity", "none", "adds", "learnt function of the token", "Dk Dv")
    rotary = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        feature_map: str = "identity",
        normaliser: str = "exp",
        **options: Any,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        if normaliser not in NORMALISERS:
            known = list(NORMALISERS)
            hint = closest(normaliser, known)
            raise ValueError(f"normaliser: expected one of {', '.join(known)}, got {normaliser!r}{hint}")
        self.features = features_of(feature_map, head_dim, None)
        self.log_eta = NORMALISERS[normaliser]
        self.linear = HeadLinear(num_heads, self.value_dim, 1, bias=True)

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return features and values."""
        del positions
        return Streams(self.features(query), self.features(key), value)

    def finish(self, out: Tensor, streams: Streams, value: Tensor) -> Tensor:
        """Return the output over eta of the token's value."""
        del streams
        log_eta = self.log_eta(widened(self.linear(value)))
        return out * (-log_eta).exp().to(out.dtype)
