"""Cosines to fixed rows that are nearly at right angles: a head without anything to learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manymax.heads.cosine import CosineHead, unit
from manymax.heads.head import Common
from manymax.heads.spherical_code import STEPS, ebv_generate

if TYPE_CHECKING:
    from typing_extensions import Unpack

PRODUCTS = 10**11  # multiplications that a head's own rows may take: some seconds on one core


class EquiangularHead(CosineHead):
    r"""Softmax of cosines to fixed vectors, one a class, that are nearly at right angles to each other.

    $$L = -\log \frac{e^{\cos(h, w_y) / \tau}}{\sum_j e^{\cos(h, w_j) / \tau}}, \qquad |w_i \cdot w_j| \le \alpha
    \text{ for } i \ne j$$

    with $h$ the features, $w_j$ a class's vector, $\tau$ the temperature and $y$ the target. The vectors are a buffer:
    they have no gradient, and the head has no parameters.

    Args:
        in_features: length of $h$.
        num_classes: number of vectors.
        temperature: $\tau$, above 0.
        alpha: $\alpha$ as in `ebv_generate`; None is 1.2 times the Welch bound.
        steps: of `ebv_generate`; None is at most 1000, and fewer where these would take more than some seconds.
        seed: of `ebv_generate`.
        vectors: (num_classes, in_features), in the place of generated ones; they are made of length 1.
        **common: the options of every head but `bias`.

    Attributes:
        weight: (num_classes, in_features), a buffer. `coherence` tells whether the steps sufficed for $\alpha$.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("equiangular-basis-vectors", in_features=8, num_classes=8)
        >>> head.predict(head.weight), len(list(head.parameters()))
        (tensor([0, 1, 2, 3, 4, 5, 6, 7]), 0)

    Source:
        Shen et al., 2023, Equiangular Basis Vectors, arXiv:2303.11637.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        temperature: float = 0.07,
        alpha: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        vectors: Tensor | None = None,
        **common: Unpack[Common],
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)
        if vectors is None:
            if steps is None:
                steps = min(STEPS, PRODUCTS // (2 * num_classes**2 * in_features))
            vectors = ebv_generate(num_classes, in_features, alpha=alpha, steps=steps, seed=seed)
        elif vectors.shape != self.weight.shape:
            raise ValueError(f"vectors: expected {tuple(self.weight.shape)}, got {tuple(vectors.shape)}")
        del self.weight
        self.register_buffer("weight", unit(vectors.detach()).to(torch.get_default_dtype()))
