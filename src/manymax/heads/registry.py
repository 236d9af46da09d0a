"""The list of heads: one line each, and how to make one by name."""

from __future__ import annotations

import inspect
from typing import Any

from manymax._names import closest
from manymax.heads.adaptive import AdaptiveSoftmaxHead
from manymax.heads.arcface import ArcFaceHead
from manymax.heads.clip import CLIPHead
from manymax.heads.colbert_projections import MaxSimHead
from manymax.heads.comp_sum import CompSumHead
from manymax.heads.cosface import CosFaceHead
from manymax.heads.decoupled_softmax import DecoupledSoftmaxHead
from manymax.heads.distillation import DistillationHead
from manymax.heads.equiangular_basis_vectors import EquiangularHead
from manymax.heads.fenchel_young import EntmaxHead, SparsemaxHead
from manymax.heads.focal import FocalHead
from manymax.heads.fourier import FourierHead
from manymax.heads.head import Common, Head
from manymax.heads.hierarchical import HierarchicalSoftmaxHead
from manymax.heads.hyperspherical_embedding import HypersphericalHead
from manymax.heads.infonce import InfoNCEHead
from manymax.heads.ldr_head import LDRHead
from manymax.heads.logit_standardization_kd import LogitStandardizationKDHead
from manymax.heads.madacos import MadaCosHead
from manymax.heads.orthogonal_projection_loss import OrthogonalProjectionHead
from manymax.heads.pointer import PointerHead
from manymax.heads.sampled import SampledSoftmaxHead
from manymax.heads.siglip import SigLIPHead
from manymax.heads.soft_topk import SoftTopKHead
from manymax.heads.softcon import SoftConHead
from manymax.heads.softmax import SoftmaxHead
from manymax.heads.sphereface2 import SphereFace2Head
from manymax.heads.stablemax import StableMaxHead
from manymax.heads.svm import SVMHead
from manymax.heads.wasserstein_dependency import WassersteinDependencyHead
from manymax.heads.z_loss_spherical import SphericalHead

HEADS: dict[str, type[Head]] = {
    "adaptive-softmax": AdaptiveSoftmaxHead,
    "arcface": ArcFaceHead,
    "clip": CLIPHead,
    "cnn-svm": SVMHead,
    "colbert-projections": MaxSimHead,
    "comp-sum-losses": CompSumHead,
    "cosface": CosFaceHead,
    "decoupled-softmax": DecoupledSoftmaxHead,
    "distillation": DistillationHead,
    "entmax": EntmaxHead,
    "equiangular-basis-vectors": EquiangularHead,
    "focal": FocalHead,
    "fourier-head": FourierHead,
    "hierarchical-softmax": HierarchicalSoftmaxHead,
    "hyperspherical-embedding": HypersphericalHead,
    "infonce": InfoNCEHead,
    "ldr-losses": LDRHead,
    "logit-standardization-kd": LogitStandardizationKDHead,
    "madacos": MadaCosHead,
    "orthogonal-projection-loss": OrthogonalProjectionHead,
    "pointer-networks": PointerHead,
    "sampled-softmax": SampledSoftmaxHead,
    "siglip": SigLIPHead,
    "soft-topk": SoftTopKHead,
    "softcon": SoftConHead,
    "softmax": SoftmaxHead,
    "sparsemax": SparsemaxHead,
    "sphereface2": SphereFace2Head,
    "stablemax": StableMaxHead,
    "wasserstein-dependency": WassersteinDependencyHead,
    "z-loss-spherical": SphericalHead,
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
        A module with `forward(input, target) -> loss`, `.logits(input)` and, where the classes are rows of a matrix,
        `.weight` (num_classes, in_features).

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
