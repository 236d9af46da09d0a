"""Small networks that make token vectors shorter."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

Kind = Literal["linear", "ffn", "glu"]
ACTIVATIONS = {"identity": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Projection(nn.Module):
    r"""Token vectors to shorter ones: one linear map, a network of several, or a gated one; none has a bias.

    $$\mathrm{linear}: x W; \qquad \mathrm{ffn}: \phi(\dots \phi(x W_1) \dots) W_n; \qquad
    \mathrm{glu}: (\phi(x W_1) \odot x W_2) W_3$$

    with $\phi$ the activation; with a residual $x W_{skip}$ is added.

    Args:
        in_features: length of $x$.
        out_features: length of the result.
        kind: "linear", "ffn" or "glu".
        depth: $n$, the maps of "ffn", at least 2.
        expansion: width between the maps over `in_features`, above 0.
        activation: "identity", "relu", "gelu" or "silu".
        residual: whether the skipping map is there; not with "linear".

    Raises:
        ValueError: if an option is out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kind: Kind = "linear",
        depth: int = 2,
        expansion: float = 2.0,
        activation: str = "gelu",
        residual: bool = False,
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"projection: expected 'linear', 'ffn' or 'glu', got {kind!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if depth < 2:
            raise ValueError(f"depth: expected at least 2, got {depth}")
        if not expansion > 0:
            raise ValueError(f"expansion: expected a number above 0, got {expansion!r}")
        if out_features < 1:
            raise ValueError(f"out_features: expected at least 1, got {out_features}")
        if residual and kind == "linear":
            raise ValueError("residual: expected False where projection is 'linear', got True")
        width = max(1, round(expansion * in_features))
        inner = {"linear": 0, "ffn": depth - 1, "glu": 1}[kind]
        sizes = [in_features, *[width] * inner, out_features]
        self.maps = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.gate = nn.Linear(in_features, width, bias=False) if kind == "glu" else None
        self.skip = nn.Linear(in_features, out_features, bias=False) if residual else None
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors (..., out_features)."""
        hidden = x
        *first, last = self.maps
        for layer in first:
            hidden = self.activation(layer(hidden))
            if self.gate is not None:
                hidden = hidden * self.gate(x)
        found: Tensor = last(hidden)
        return found if self.skip is None else found + self.skip(x)
