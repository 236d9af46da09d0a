"""The list of heads: one line each, and how to make one by name."""

from __future__ import annotations

import inspect
from typing import Any

from manymax._names import closest
from manymax.heads.adaptive import AdaptiveSoftmaxHead
from manymax.heads.comp_sum import CompSumHead
from manymax.heads.fenchel_young import EntmaxHead, SparsemaxHead
from manymax.heads.focal import FocalHead
from manymax.heads.fourier import FourierHead
from manymax.heads.head import Common, Head
from manymax.heads.hierarchical import HierarchicalSoftmaxHead
from manymax.heads.ldr_head import LDRHead
from manymax.heads.pointer import PointerHead
from manymax.heads.sampled import SampledSoftmaxHead
from manymax.heads.softmax import SoftmaxHead
from manymax.heads.stablemax import StableMaxHead
from manymax.heads.svm import SVMHead

HEADS: dict[str, type[Head]] = {
    "softmax": SoftmaxHead,
    "stablemax": StableMaxHead,
    "adaptive-softmax": AdaptiveSoftmaxHead,
    "cnn-svm": SVMHead,
    "comp-sum-losses": CompSumHead,
    "entmax": EntmaxHead,
    "focal": FocalHead,
    "fourier-head": FourierHead,
    "hierarchical-softmax": HierarchicalSoftmaxHead,
    "ldr-losses": LDRHead,
    "pointer-networks": PointerHead,
    "sampled-softmax": SampledSoftmaxHead,
    "sparsemax": SparsemaxHead,
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
