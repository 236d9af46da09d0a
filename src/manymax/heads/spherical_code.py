"""Vectors of length 1 of which no two are near: how near they have to be, how near they are, and how to find them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manymax.heads.chunk import chunks
from manymax.heads.cosine import unit

ABOVE_WELCH = 1.2
STEPS = 1000
INSIDE = 0.98  # of the bound is where the excess begins, so that descent crosses the bound instead of nearing it


def welch_bound(count: int, dim: int) -> float:
    r"""Compute the least that the largest |cosine| between so many vectors can be.

    $$\sqrt{\frac{N - d}{d (N - 1)}}$$

    for $N > d$, and 0 for up to $d$ vectors, which may be orthogonal.

    Args:
        count: $N$.
        dim: $d$.

    Returns:
        The bound. It is not reached for every $N$ and $d$.

    Example:
        >>> from manymax.heads.spherical_code import welch_bound
        >>> round(welch_bound(3, 2), 6)  # three lines in the plane, 60 degrees apart
        0.5

    Source:
        Welch, 1974, Lower bounds on the maximum cross correlation of signals, IEEE Transactions on Information Theory
        20.
    """
    return math.sqrt((count - dim) / (dim * (count - 1))) if count > dim else 0.0


@torch.no_grad()
def coherence(rows: Tensor, chunk_size: int | None = None) -> float:
    """Return the largest |cosine| between two of the rows (N, d), chunk by chunk; 0 for one row.

    Example:
        >>> import torch
        >>> from manymax.heads.spherical_code import coherence
        >>> coherence(torch.eye(3))
        0.0
    """
    rows, largest = unit(rows), 0.0
    for part in chunks(len(rows), len(rows), chunk_size):
        largest = max(largest, float(_between(rows, part).abs().max()))
    return largest


def _between(rows: Tensor, part: slice) -> Tensor:
    """Return the products of some rows with all, (n, N), and 0 for those of a row with itself."""
    products = rows[part] @ rows.T
    products[torch.arange(len(products)), torch.arange(part.start, part.stop)] = 0
    return products


@torch.no_grad()
def ebv_generate(
    count: int,
    dim: int,
    *,
    alpha: float | None = None,
    steps: int = STEPS,
    seed: int = 0,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Find vectors of length 1 of which no two have a |cosine| above a bound.

    $$\min_W \sum_{i \ne j} \max(0, |w_i \cdot w_j| - \alpha)^2, \qquad \lVert w_i \rVert = 1$$

    by gradient descent from random rows, all of which are made of length 1 after each step. Up to $d$ vectors are made
    orthogonal at once.

    Args:
        count: $N$, the number of vectors.
        dim: $d$, their length.
        alpha: the bound; None is 1.2 times `welch_bound(count, dim)`, which no set can beat.
        steps: after which the best rows so far are returned even if they miss the bound; `coherence` tells.
        seed: of the random rows; the global generator is left alone.
        chunk_size: rows whose products exist at once; None takes as many as 16 MiB allow.

    Returns:
        The vectors (count, dim), in float32.

    Raises:
        ValueError: if a size is below 1, or alpha below the Welch bound.

    Example:
        >>> from manymax.heads.spherical_code import coherence, ebv_generate
        >>> coherence(ebv_generate(20, 8, alpha=0.35)) <= 0.35
        True

    Source:
        Shen et al., 2023, Equiangular Basis Vectors, arXiv:2303.11637; the authors' code takes the excess without its
        square, whose steps cannot be large and converge, and 100,000 of them. The bound: see `welch_bound`.
    """
    for name, size in (("count", count), ("dim", dim)):
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    least = welch_bound(count, dim)
    if alpha is None:
        alpha = min(1.0, ABOVE_WELCH * least)
    if not alpha >= least:
        raise ValueError(f"alpha: expected at least {least:.6g}, the Welch bound of {count} and {dim}, got {alpha!r}")
    generator = torch.Generator().manual_seed(seed)
    if count <= dim:
        orthogonal: Tensor = torch.linalg.qr(torch.randn(dim, count, generator=generator, dtype=torch.float64))[0]
        return orthogonal.T.float()
    rows = unit(torch.randn(count, dim, generator=generator))
    best, lowest = rows, math.inf
    for step in range(steps + 1 if steps else 0):  # to look at random rows alone takes as long as a step
        pulled, largest = _excess(rows, INSIDE * alpha, chunk_size)
        if largest < lowest:
            best, lowest = rows, largest
        if largest <= alpha or step == steps:
            break
        # The rows' second moment is N / d where they lie evenly, which bounds the step.
        rows = unit(rows - dim / count * pulled)
    return best


def _excess(rows: Tensor, alpha: float, chunk_size: int | None) -> tuple[Tensor, float]:
    """Return a quarter of the objective's gradient, (N, d), and the largest |product|."""
    pulled, largest = torch.empty_like(rows), 0.0
    for part in chunks(len(rows), len(rows), chunk_size):
        products = _between(rows, part)
        largest = max(largest, float(products.abs().max()))
        pulled[part] = (products - products.clamp(-alpha, alpha)) @ rows
    return pulled, largest
