"""How far a classifier's features have collapsed onto their classes' means."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NeuralCollapse(NamedTuple):
    """Four distances from collapse, each 0 where it is complete.

    Attributes:
        nc1: variability within classes over that between them.
        nc2: distance of the class means from the frame.
        nc3: distance of the weights from the class means.
        nc4: share of samples where the classifier and the nearest class mean disagree.
    """

    nc1: float
    nc2: float
    nc3: float
    nc4: float


@torch.no_grad()
def neural_collapse(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None, *, frame: str = "simplex"
) -> NeuralCollapse:
    r"""Measure the four signs of neural collapse in a classifier's last layer.

    $$\mathrm{NC}_1 = \frac{1}{K} \mathrm{tr}\left(S_W S_B^{+}\right), \qquad
    \mathrm{NC}_2 = \left\lVert \frac{M^\top M}{\lVert M^\top M \rVert_F} - E \right\rVert_F, \qquad
    \mathrm{NC}_3 = \left\lVert \frac{W}{\lVert W \rVert_F} - \frac{M^\top}{\lVert M \rVert_F} \right\rVert_F$$

    with $K$ classes, $S_W$ the mean over samples of the covariance within their classes, $S_B$ the covariance of the
    class means around the mean of the class means, $S_B^{+}$ its pseudo-inverse, $W$ the weight, and $M$ the class
    means as columns. For a classifier with a bias they are centred and
    $E = (I - \frac{1}{K} 1 1^\top) / \sqrt{K - 1}$, a simplex; without a bias they are not and $E = I / \sqrt{K}$, an
    orthogonal frame. $\mathrm{NC}_4$ is the share of samples whose largest score is not at the nearest class mean.

    Args:
        features: (n, D), what the last layer reads.
        labels: classes (n,), each of the K at least once.
        weight: (K, D).
        bias: (K,), or None.
        frame: "simplex" or "orthogonal".

    Returns:
        The four numbers. Codes of others leave out the 1 / K of the first, or square the third.

    Raises:
        TypeError: if there is no such frame.
        ValueError: if shapes do not fit or a class has no sample.

    Example:
        >>> import torch, manymax as mm
        >>> means = torch.eye(3)
        >>> mm.diagnose.neural_collapse(means.repeat(2, 1), torch.arange(3).repeat(2), means, frame="orthogonal").nc3
        0.0

    Source:
        Dang et al., 2023, Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data, arXiv:2301.00437;
        Papyan et al., 2020, Prevalence of Neural Collapse during the Terminal Phase of Deep Learning Training,
        arXiv:2008.08186.
    """
    _check(features, labels, weight, bias, frame)
    classes = len(weight)
    h, w = features.double(), weight.double()
    counts = torch.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"labels: expected every class, got none of class {int((counts == 0).nonzero()[0])}")
    means = torch.zeros(classes, h.shape[1], dtype=h.dtype, device=h.device).index_add_(0, labels, h)
    means /= counts[:, None]
    centred = means - means.mean(0)
    off = h - means[labels]
    within, between = off.T @ off / len(h), centred.T @ centred / classes
    frame_means = centred if frame == "simplex" else means
    target = torch.eye(classes, dtype=h.dtype, device=h.device)
    target = (target - 1 / classes) / (classes - 1) ** 0.5 if frame == "simplex" else target / classes**0.5
    scores = h @ w.T + (0 if bias is None else bias.double())
    return NeuralCollapse(
        nc1=float((within @ torch.linalg.pinv(between, hermitian=True)).trace() / classes),
        nc2=_distance(frame_means @ frame_means.T, target),
        nc3=_distance(w, frame_means / _norm(frame_means)),
        nc4=float((scores.argmax(1) != torch.cdist(h, means).argmin(1)).double().mean()),
    )


def _norm(x: Tensor) -> Tensor:
    found: Tensor = torch.linalg.matrix_norm(x).clamp(min=torch.finfo(x.dtype).tiny)
    return found


def _distance(x: Tensor, unit: Tensor) -> float:
    return float(torch.linalg.matrix_norm(x / _norm(x) - unit))


def _check(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, frame: str) -> None:
    if frame not in {"simplex", "orthogonal"}:
        raise TypeError(f"frame: expected 'simplex' or 'orthogonal', got {frame!r}")
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels: expected one for each row of features {tuple(features.shape)}, got {tuple(labels.shape)}"
        )
    if weight.dim() != 2 or weight.shape[1] != features.shape[1] or len(weight) < 2:
        raise ValueError(f"weight: expected (2 classes or more, {features.shape[1]}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected ({len(weight)},), got {tuple(bias.shape)}")
    if labels.is_floating_point() or not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < len(weight):
        raise ValueError(f"labels: expected whole numbers below {len(weight)}, at least one")
