"""What the models are made of: the attention sublayer around any mechanism, the MLP, the block, rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.state import State

Factory = Callable[..., nn.Module]
Norm = Literal["rms", "simple"]
Units = Literal["swiglu", "sglu"]
UNIT = 32  # width of a head, and what one step of the size dial adds to the width


@dataclass(frozen=True)
class Size:
    """The sizes that follow from one dial, `depth`, each overridable.

    Attributes:
        depth: blocks.
        width: length of a token's features, UNIT * depth.
        num_heads: query heads, one for each UNIT of the width.
        num_kv_heads: key and value heads, as many as query heads; fewer is grouped-query attention.
        hidden: width inside the MLP, 8/3 of the width, so that its three matrices hold as much as two of 4 times it.
    """

    depth: int
    width: int
    num_heads: int
    num_kv_heads: int
    hidden: int

    @classmethod
    def of(
        cls, depth: int, width: int | None, num_heads: int | None, num_kv_heads: int | None, hidden: int | None
    ) -> Size:
        """Return the sizes, those that are None from the dial."""
        width = UNIT * depth if width is None else width
        num_heads = max(1, width // UNIT) if num_heads is None else num_heads
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        hidden = max(1, round(8 * width / 3 / UNIT)) * UNIT if hidden is None else hidden
        size = cls(depth, width, num_heads, num_kv_heads, hidden)
        for name, value in vars(size).items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if width % num_heads:
            raise ValueError(f"num_heads: expected a divisor of the width {width}, got {num_heads}")
        if num_heads % num_kv_heads:
            raise ValueError(f"num_kv_heads: expected a divisor of num_heads {num_heads}, got {num_kv_heads}")
        return size

    @property
    def head_dim(self) -> int:
        """Return the width of one head."""
        return self.width // self.num_heads


class Cache:
    """What generation keeps of the tokens so far: one state a mechanism, which alone knows what it is.

    Nobody else holds the states, so that a token may overwrite them.
    """

    def __init__(self) -> None:
        self.states: dict[nn.Module, Any] = {}
        self.length = 0

    @property
    def nbytes(self) -> int | None:
        """Return how much memory the states take; None if one of them does not say."""
        if not all(hasattr(state, "nbytes") for state in self.states.values()):
            return None
        return sum(int(state.nbytes) for state in self.states.values())

    def attend(self, mechanism: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the outputs of new tokens: many at first, then one at a time."""
        if mechanism in self.states:
            out, self.states[mechanism] = mechanism.step(query, key, value, self.states[mechanism])
        else:
            out, state = mechanism.prefill(query, key, value)
            self.states[mechanism] = state.in_place() if isinstance(state, State) else state
        return out  # type: ignore[no-any-return]


class Heads(nn.Module):
    """The projections of an attention sublayer, whatever lies between them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.query_key_value = linear(size.width, (size.num_heads + 2 * size.num_kv_heads) * size.head_dim)
        self.output = writer(size.width, size.width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value (B, heads, N, head_dim) of x (B, N, width)."""
        size = self.size
        heads = self.query_key_value(x).unflatten(-1, (-1, size.head_dim)).transpose(1, 2)
        query, key, value = heads.split([size.num_heads, size.num_kv_heads, size.num_kv_heads], dim=1)
        return query, key, value

    def merge(self, mixed: Tensor, gate: Tensor | None = None) -> Tensor:
        """Return the update (B, N, width) that the outputs (B, H, N, head_dim) of all heads make together.

        Args:
            mixed: the outputs.
            gate: (B, N, width), times which they count; None is 1.
        """
        features = mixed.transpose(1, 2).flatten(2)
        return self.output(features if gate is None else features * gate)  # type: ignore[no-any-return]


class Attention(Heads):
    """Projections around a mechanism, which sees query (B, H, N, D), key and value, and is attached last.

    Args:
        size: widths and heads.
        gated: whether a linear map of the features multiplies what the mechanism gives.
    """

    mechanism: nn.Module

    def __init__(self, size: Size, *, gated: bool = False) -> None:
        super().__init__(size)
        self.gate = linear(size.width, size.width) if gated else None

    def forward(self, x: Tensor, rotation: Tensor | None, cache: Cache | None, **options: Any) -> Tensor:
        """Return what each token of x (B, N, width) reads from the others; options go to the mechanism.

        Queries and keys are turned by `rotation`, unless the mechanism knows order by itself and says `rotary = False`.
        """
        query, key, value = self.split(x)
        if rotation is not None and getattr(self.mechanism, "rotary", True):
            query, key = rotate(query, rotation), rotate(key, rotation)
        if cache is not None:
            mixed = cache.attend(self.mechanism, query, key, value)
        else:
            mixed = self.mechanism(query, key, value, **options)
        return self.merge(mixed, None if self.gate is None else self.gate(x))


class MLP(nn.Module):
    """Hidden features times a gate, another linear map: SwiGLU takes its SiLU first, SGLU takes it as it is.

    SwiGLU: Shazeer, 2020, arXiv:2002.05202. SGLU: Qin et al., 2023, arXiv:2307.14995.
    """

    def __init__(self, size: Size, *, units: Units = "swiglu") -> None:
        super().__init__()
        self.units = one_of("mlp", units, Units)
        self.gate_and_hidden = linear(size.width, 2 * size.hidden)
        self.output = writer(size.hidden, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return an update of each token's features on their own."""
        gate, hidden = self.gate_and_hidden(x).chunk(2, dim=-1)
        return self.output((F.silu(gate) if self.units == "swiglu" else gate) * hidden)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then an MLP, each reading normalised features and adding to the residual stream.

    Args:
        size: widths and heads.
        norm: "rms" or "simple", as in `make_norm`.
        mlp: "swiglu" or "sglu", as in `MLP`.
        gated: whether attention has a gate, as in `Attention`.
    """

    def __init__(self, size: Size, *, norm: Norm = "rms", mlp: Units = "swiglu", gated: bool = False) -> None:
        super().__init__()
        self.attention_norm = make_norm(norm, size.width)
        self.attention = Attention(size, gated=gated)
        self.mlp_norm = make_norm(norm, size.width)
        self.mlp = MLP(size, units=mlp)

    def forward(self, x: Tensor, rotation: Tensor | None = None, cache: Cache | None = None, **options: Any) -> Tensor:
        """Return the features (B, N, width) after both sublayers."""
        x = x + self.attention(self.attention_norm(x), rotation, cache, **options)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


def make_norm(norm: Norm, width: int) -> nn.RMSNorm:
    """Return what divides features by their root mean square: "rms" with a gain of each, "simple" without."""
    return nn.RMSNorm(width, elementwise_affine=one_of("norm", norm, Norm) == "rms")


def one_of(name: str, given: str, known: Any) -> str:
    """Return an option that is one of a Literal's strings."""
    if given not in get_args(known):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(known))}, got {given!r}")
    return given


def linear(in_features: int, out_features: int) -> nn.Linear:
    """Return a linear map whose outputs have unit variance for inputs of unit variance."""
    layer = nn.Linear(in_features, out_features, bias=False)
    nn.init.normal_(layer.weight, std=in_features**-0.5)
    return layer


def writer(in_features: int, out_features: int) -> nn.Linear:
    """Return a linear map that writes to the residual stream: zero, so that a new block changes nothing."""
    layer = nn.Linear(in_features, out_features, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def rotation(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return cos and sin of position * base^(-2i/D), (2, N, D/2), for `rotate`; in float32 at least, as angles need."""
    dtype = torch.promote_types(dtype, torch.float32)
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=dtype, device=positions.device) / head_dim)
    angles = positions[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn feature pairs (i, i + D/2) of x (B, H, N, D) by their angles: scores then depend on distance alone.

    Rotary position embedding: Su et al., 2021, RoFormer, arXiv:2104.09864, with the pairing of GPT-NeoX and Llama.
    """
    cos, sin = rotation.to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)
