"""Parts of models from functions to functions: spectral convolutions, and a loss that does not depend on sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralConvolution(nn.Module):
    """A linear map of each of the lowest frequencies, one of each point beside it, and SiLU of the sum.

    Args:
        dims: 1 or 2.
        width: features of a point.
        modes: frequencies along a side.
    """

    def __init__(self, dims: int, width: int, modes: int) -> None:
        super().__init__()
        if modes < 1:
            raise ValueError(f"modes: expected at least 1, got {modes}")
        self.dims, self.modes = dims, modes
        rows = 1 if dims == 1 else 2 * modes
        self.weight = nn.Parameter(torch.randn(2, rows, modes, width, width) / width)  # real and imaginary parts
        self.point = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, height, width of the grid, width); one row in one dimension."""
        height, breadth = x.shape[1:3]
        rows = torch.arange(self.weight.shape[1], device=x.device)
        rows = torch.where(rows < self.modes, rows, rows + height - len(rows))  # the lowest of both signs
        spectrum = torch.fft.rfft2(x, dim=(1, 2))
        weight = torch.complex(self.weight[0], self.weight[1])
        changed = torch.einsum("brci,rcio->brco", spectrum[:, rows, : self.modes], weight)
        kept = changed.new_zeros(len(x), height, *changed.shape[2:]).index_copy(1, rows, changed)
        return F.silu(self.point(x) + torch.fft.irfft2(kept, s=(height, breadth), dim=(1, 2)))


def relative_loss(found: Tensor, wanted: Tensor, *, gamma: float = 0.0) -> Tensor:
    r"""Return the mean over functions of the relative error, with that of derivatives beside it.

    $$\frac{1}{B} \sum_{b=1}^B \frac{\lVert u_b - w_b \rVert}{\lVert w_b \rVert}
    + \gamma \frac{\lvert u_b - w_b \rvert_1}{\lvert w_b \rvert_1}$$

    where u are the B functions found and w those wanted, none of them 0 everywhere, $\lVert \cdot \rVert$ is the
    Euclidean norm over points, and $\lvert \cdot \rvert_1$ that of central differences at all points that are not on
    the boundary, the seminorm of H¹.

    Args:
        found: (B, n) on the unit interval or (B, height, width) on the unit square.
        wanted: the same.
        gamma: weight of derivatives, at least 0.

    Returns:
        A number.

    Raises:
        ValueError: if the shapes differ, or gamma is negative.

    Example:
        >>> import torch
        >>> from manymax.models.operators import relative_loss
        >>> line = torch.linspace(0, 1, 5)[None]
        >>> relative_loss(1.5 * line, line, gamma=0.1)
        tensor(0.5500)

    Source:
        Cao, 2021, Choose a Transformer: Fourier or Galerkin, arXiv:2105.14995. The authors' code weighs derivatives by
        the root of γ h, with h the distance of points, and multiplies them by the coefficient of a Darcy flow.
    """
    if found.shape != wanted.shape or found.dim() not in {2, 3}:
        expected = f"the shape of wanted, {tuple(wanted.shape)}, with 2 or 3 dims"
        raise ValueError(f"found: expected {expected}, got {tuple(found.shape)}")
    if gamma < 0:
        raise ValueError(f"gamma: expected at least 0, got {gamma}")
    missed = found - wanted
    error = _norm(missed) / _norm(wanted)
    if gamma:
        error = error + gamma * _norm(_derivatives(missed)) / _norm(_derivatives(wanted))
    return error.mean()


def perceptron(width: int, hidden: int, out: int, activation: nn.Module) -> nn.Sequential:
    """Return a network of one hidden layer."""
    return nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, out))


def _norm(x: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return size


def _derivatives(x: Tensor) -> Tensor:
    """Return central differences along each side at inner points, up to a factor that is the same for all."""
    if x.dim() == 2:
        return x[:, 2:] - x[:, :-2]
    down = (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) * (x.shape[1] - 1)
    across = (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]) * (x.shape[2] - 1)
    return torch.stack([down, across], 1)
