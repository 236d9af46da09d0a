"""A transformer from functions to functions on an interval or a square, whose attention has no softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.galerkin_transformer import OperatorAttention, coordinates
from manymax.attention.mechanism import Grid
from manymax.models.operators import SpectralConvolution, perceptron, relative_loss

BOUNDARIES = ("free", "zero")


class GalerkinTransformer(nn.Module):
    r"""An encoder of attention as an operator on functions, without norms between, and a decoder of frequencies.

    $$x \leftarrow x + \mathrm{attn}(x) W, \qquad x \leftarrow x + \mathrm{FFN}(x), \qquad
    \mathrm{attn}(x) = \frac{1}{n} \sum_h Q_h \bigl(\mathrm{LN}(K_h)^\top \mathrm{LN}(V_h)\bigr) B_h$$

    where the rows of x are the features of the n points, $Q_h$, $K_h$ and $V_h$ are linear maps of x for each head h
    beside the points' coordinates, LN is a layer norm, $B_h$ takes a head back to its channels, W mixes heads, and FFN
    is a perceptron of each point. Then come two spectral convolutions, $x \leftarrow \mathrm{SiLU}(F^{-1} R F x + x P)$
    with F the Fourier transform, R a linear map for each of the lowest frequencies, zero above, and P one for all
    points, and a perceptron of each point. The same weights take functions on any number of points.

    Projections to Q, K and V start small, by Glorot and Bengio's rule times `gain`, with `diagonal` added to their
    diagonals.

    Args:
        dims: 1 for functions on an interval, 2 on a square.
        width: features of a point.
        num_heads: a divisor of the width.
        depth: encoder blocks.
        hidden: width inside the perceptrons; None is 2 * width.
        modes: frequencies along a side that spectral convolutions change, 0 to modes - 1, in two dimensions with both
            signs along the first.
        kind: "galerkin" as above, or the others that `OperatorAttention` has: "fourier", "softmax" and "linear".
        norm: of keys and values, "layer", or "instance" over the points.
        boundary: "free", or "zero" for functions that are 0 at the ends or the edges.
        gain: of the start of the projections.
        diagonal: what is added to their diagonals.
        gamma: weight of derivatives in the loss, as in `relative_loss`.

    Raises:
        ValueError: if an option is out of range, or there are fewer points along a side than 2 * modes.

    Example:
        >>> import torch
        >>> from manymax.models.galerkin_transformer import GalerkinTransformer
        >>> model = GalerkinTransformer(2, width=16, num_heads=2, depth=1, modes=4)
        >>> functions = torch.randn(3, 9, 11)
        >>> model.functions(functions).shape, model(functions, functions).shape
        (torch.Size([3, 9, 11]), torch.Size([]))

    Source:
        Cao, 2021, Choose a Transformer: Fourier or Galerkin, arXiv:2105.14995; spectral convolutions: Li et al., 2020,
        Fourier Neural Operator for Parametric Partial Differential Equations, arXiv:2010.08895. In the authors' code
        coordinates also enter beside the values in two dimensions alone, where they enter once more before the
        decoder; attention and FFN have dropout, and finer grids are scaled down before attention and up after it.
    """

    def __init__(
        self,
        dims: int = 1,
        *,
        width: int = 64,
        num_heads: int = 1,
        depth: int = 4,
        hidden: int | None = None,
        modes: int = 12,
        kind: str = "galerkin",
        norm: str = "layer",
        boundary: str = "free",
        gain: float = 1e-2,
        diagonal: float = 1e-2,
        gamma: float = 0.0,
    ) -> None:
        super().__init__()
        if dims not in {1, 2}:
            raise ValueError(f"dims: expected 1 or 2, got {dims}")
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r}")
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads: expected a divisor of the width {width}, got {num_heads}")
        if gamma < 0:
            raise ValueError(f"gamma: expected at least 0, got {gamma}")
        self.dims, self.modes, self.boundary, self.gamma = dims, modes, boundary, gamma
        hidden = 2 * width if hidden is None else hidden
        self.lift = nn.Linear(1 + dims, width)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            mechanism = OperatorAttention(
                head_dim=width // num_heads, num_heads=num_heads, kind=kind, norm=norm, pos_dim=dims
            )
            self.blocks.append(OperatorBlock(mechanism, width, hidden, gain=gain, diagonal=diagonal))
        self.spectral = nn.ModuleList(SpectralConvolution(dims, width, modes) for _ in range(2))
        self.project = perceptron(width, hidden, 1, nn.SiLU())

    def functions(self, values: Tensor) -> Tensor:
        """Return functions for functions, (B, n) each, or (B, height, width) with two dimensions."""
        if values.dim() != 1 + self.dims or min(values.shape[1:]) < 2 * self.modes:
            sides = ", ".join(["at least 2 * modes"] * self.dims)
            raise ValueError(f"values: expected (batch, {sides}) with modes = {self.modes}, got {tuple(values.shape)}")
        grid = (1, values.shape[1]) if self.dims == 1 else (values.shape[1], values.shape[2])
        x = values.flatten(1)[..., None]
        where = coordinates(x[:, None], None, grid, self.dims)
        x = self.lift(torch.cat([x, where.expand(len(x), -1, -1)], -1))
        for block in self.blocks:
            x = block(x, grid)
        x = x.unflatten(1, grid)
        for layer in self.spectral:
            x = layer(x)
        found: Tensor = self.project(x).reshape(values.shape)
        return found if self.boundary == "free" else _zero_ends(found)

    def forward(self, values: Tensor, wanted: Tensor) -> Tensor:
        """Return `relative_loss` of the functions found."""
        return relative_loss(self.functions(values), wanted, gamma=self.gamma)


class OperatorBlock(nn.Module):
    """x + attention(x), then x + FFN(x).

    Args:
        mechanism: what each head attends by.
        width: features of a point.
        hidden: width inside the FFN.
        gain: of the start of the projections.
        diagonal: what is added to their diagonals.
    """

    def __init__(self, mechanism: OperatorAttention, width: int, hidden: int, *, gain: float, diagonal: float) -> None:
        super().__init__()
        self.query_key_value = nn.ModuleList(_projection(width, gain, diagonal) for _ in range(3))
        self.mechanism = mechanism
        self.output = nn.Linear(width, width)
        self.ffn = perceptron(width, hidden, width, nn.ReLU())

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Return features (B, N, width) of a grid's points, row by row."""
        heads = (-1, self.mechanism.head_dim)
        query, key, value = (p(x).unflatten(-1, heads).transpose(1, 2) for p in self.query_key_value)
        x = x + self.output(self.mechanism(query, key, value, grid=grid).transpose(1, 2).flatten(2))
        return x + self.ffn(x)  # type: ignore[no-any-return]


@torch.no_grad()
def _projection(width: int, gain: float, diagonal: float) -> nn.Linear:
    """Return a linear map that starts at random with a gain, and with numbers added to its diagonal."""
    layer = nn.Linear(width, width)
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)
    layer.weight.diagonal().add_(diagonal)
    return layer


def _zero_ends(x: Tensor) -> Tensor:
    """Return functions that are 0 at the ends or the edges."""
    inner = (slice(1, -1),) * (x.dim() - 1)
    return F.pad(x[(slice(None), *inner)], (1, 1) * (x.dim() - 1))
