"""The list of heads: one line each, and how to make one by name."""

from __future__ import annotations

import inspect
from typing import Any

from manymax._names import closest
from manymax.heads.arcface import ArcFaceHead
from manymax.heads.clip import CLIPHead
from manymax.heads.cosface import CosFaceHead
from manymax.heads.equiangular_basis_vectors import EquiangularHead
from manymax.heads.head import Common, Head
from manymax.heads.hyperspherical_embedding import HypersphericalHead
from manymax.heads.infonce import InfoNCEHead
from manymax.heads.madacos import MadaCosHead
from manymax.heads.orthogonal_projection_loss import OrthogonalProjectionHead
from manymax.heads.siglip import SigLIPHead
from manymax.heads.softmax import SoftmaxHead
from manymax.heads.sphereface2 import SphereFace2Head
from manymax.heads.stablemax import StableMaxHead

HEADS: dict[str, type[Head]] = {
    "arcface": ArcFaceHead,
    "cosface": CosFaceHead,
    "equiangular-basis-vectors": EquiangularHead,
    "hyperspherical-embedding": HypersphericalHead,
    "madacos": MadaCosHead,
    "orthogonal-projection-loss": OrthogonalProjectionHead,
    "clip": CLIPHead,
    "infonce": InfoNCEHead,
    "siglip": SigLIPHead,
    "softmax": SoftmaxHead,
    "sphereface2": SphereFace2Head,
    "stablemax": StableMaxHead,
}


def list_heads() -> list[str]:
    """Return the names of all heads.

    Example:
        >>> import manymax as mm
        >>> "stablemax" in mm.list_heads()
        True
    """
    return sorted(HEADS)


def create_head(name: str, *, in_features: int, num_classes: int, **params: Any) -> Head:
    """Create a head by name: a module that turns features and targets into a loss.

    Args:
        name: one of `list_heads()`.
        in_features: length of the features.
        num_classes: number of classes.
        **params: the head's own options.

    Returns:
        A module with `.weight` (num_classes, in_features), `forward(input, target) -> loss` and `.logits(input)`.

    Raises:
        TypeError: if the head has no such option.
        ValueError: if the name is unknown or an option's value is out of range.

    Example:
        >>> import manymax as mm
        >>> mm.create_head("softmax", in_features=8, num_classes=4, label_smoothing=0.1)
        SoftmaxHead(in_features=8, num_classes=4, bias=False)
    """
    if name not in HEADS:
        raise ValueError(f"name: expected one of {', '.join(HEADS)}, got {name!r}{closest(name, list(HEADS))}")
    own = set(inspect.signature(HEADS[name]).parameters) - {"in_features", "num_classes", "common"}
    options = sorted(own | set(Common.__annotations__))
    for key in params:
        if key not in options:
            raise TypeError(f"{name} has no option {key!r}; it has {', '.join(options)}{closest(key, options)}")
    return HEADS[name](in_features, num_classes, **params)
