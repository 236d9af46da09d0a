"""Linear attention: a feature map in the place of exp, so that a running sum replaces the pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from manymax.attention.linear.features import Favor, Features, feature_map
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.parts import per_head
from manymax.attention.linear.streams import Streams
from manymax.attention.mechanism import Choices
from manymax.attention.options import check_sizes_or_none


class Linear(LinearAttention):
    r"""Attend with products of features of queries and keys, divided by their sum.

    $$o_i = \frac{\phi(q_i)^\top \sum_{j \le i} \phi(k_j) v_j^\top}{\phi(q_i)^\top \sum_{j \le i} \phi(k_j)}$$

    where $q_i$, $k_j$ and $v_j$ are queries, keys and values and $\phi$ is the feature map; without a causal mask the
    sums run over all j. A row whose sum is 0 gives zeros. Random features do not underflow at any length of queries and
    keys: they are scaled by a factor of the query and one of each feature, which the state keeps, and both cancel.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        feature_map: "elu" (elu(x) + 1), "relu", "favor" (positive random features of exp(q · k / sqrt(d))), or any
            of "exp", "identity", "leaky_relu", "sigmoid", "silu" and "squared_relu".
        num_features: of "favor"; None is head_dim.
        **options: `value_dim`, `conv_size`, `chunk_size` and `backend`, as for every mechanism of this family.

    Raises:
        ValueError: if the feature map or an option's value is unknown, or num_features is given to a map without any.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("linear", head_dim=16, num_heads=2)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Katharopoulos et al., 2020, Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
        arXiv:2006.16236; "favor": Choromanski et al., 2020, Rethinking Attention with Performers, arXiv:2009.14794.
    """

    choices = Choices("elu(x) + 1", "none", "adds", "sum of weights", "Dk (Dv + 1)")
    normalise = True
    rotary = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        feature_map: str = "elu",
        num_features: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads, **options)
        if num_features is not None and feature_map != "favor":
            raise ValueError(f"num_features: expected None beside feature_map={feature_map!r}, got {num_features}")
        check_sizes_or_none(num_features=num_features)
        self.features = features_of(feature_map, head_dim, num_features)

    @classmethod
    def choices_with(cls, **options: Any) -> Choices:
        """Return the choices with the feature map in words; the shifts of random features are kept, too."""
        given = options.get("feature_map", "elu")
        words = {"elu": cls.choices.features, "favor": "FAVOR+", "relu": "ReLU"}
        state = "m (Dv + 2)" if given == "favor" else cls.choices.state
        return replace(cls.choices, features=words.get(given, given), state=state)

    def streams(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Streams:
        """Return features and values."""
        del positions
        return Streams(self.features(query), self.features(key), value)

    def shifted(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        positions: Tensor,
        keep: Tensor | None,
        state: Any | None,
        *,
        whole: bool,
    ) -> tuple[Streams, Tensor | None]:
        """Return features that do not underflow, values, and the shift of the next state; other maps have none."""
        if not isinstance(self.features, Favor):
            return super().shifted(query, key, value, positions, keep, state, whole=whole)
        key, value = per_head(key, self.num_heads), per_head(value, self.num_heads)
        start = None if state is None else state.shift
        query, key, decay, shift = self.features.shifted(query, key, keep, start, whole=whole)
        return Streams(query, key, value, decay), shift


def features_of(name: str, head_dim: int, num_features: int | None) -> Features:
    """Return a feature map by name; random ones are drawn now."""
    if name == "favor":
        return Favor(head_dim, head_dim if num_features is None else num_features)
    return feature_map(name, also=("favor",))
