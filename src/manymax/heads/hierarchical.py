"""Hierarchical softmax: the classes are leaves of a tree, a probability is a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.head import Common
from manymax.heads.structured import StructuredHead

if TYPE_CHECKING:
    from typing_extensions import Unpack


class HierarchicalSoftmaxHead(StructuredHead):
    r"""Classes as leaves of a balanced binary tree: a token costs the nodes on its way, not all classes.

    $$p(y) = \prod_{k \in \text{path}(y)} \sigma(s_k \, v_k^\top h), \qquad s_k = \pm 1$$

    with $h$ the features, $v_k$ the vector of an inner node, $\sigma$ the logistic function and $s_k$ whether the way
    to the leaf of $y$ goes left (+1) or right (-1) at $k$. There are $C - 1$ nodes for $C$ classes and at most
    $\lceil \log_2 C \rceil$ on a way; the probabilities of all classes sum to 1. The nodes are those of a heap, 1 at
    the root and $2 k$ and $2 k + 1$ below $k$, with class $c$ at $C + c$: which classes share a node follows from their
    order, and learning is easiest where neighbours mean similar things.

    Args:
        in_features: length of $h$.
        num_classes: $C$.
        **common: the options of every head but `bias`.

    Attributes:
        nodes: (C - 1, in_features), one row for each inner node from the root on.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("hierarchical-softmax", in_features=8, num_classes=6)
        >>> head.logits(torch.zeros(8)).exp().tolist()  # two leaves are a step nearer to the root
        [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]

    Source:
        Morin and Bengio, 2005, Hierarchical Probabilistic Neural Network Language Model, AISTATS; Mnih and Hinton,
        2008, A Scalable Hierarchical Distributed Language Model, NeurIPS 21.
    """

    path: Tensor
    sign: Tensor

    def __init__(self, in_features: int, num_classes: int, **common: Unpack[Common]) -> None:
        super().__init__(in_features, num_classes, **common)
        self.nodes = nn.Parameter(torch.empty(num_classes - 1, in_features))
        nn.init.normal_(self.nodes, std=in_features**-0.5)
        depth = (2 * num_classes - 1).bit_length() - 1
        above = torch.arange(num_classes, 2 * num_classes)[:, None] >> torch.arange(depth)
        parent = above >> 1
        sign = torch.where(parent > 0, 1 - 2 * (above & 1), 0)  # 0 above the root of a shorter way
        self.register_buffer("path", (parent - 1).clamp_min(0), persistent=False)
        self.register_buffer("sign", sign, persistent=False)

    def way(self, dtype: torch.dtype) -> tuple[Callable[[Tensor, Tensor], Tensor], int]:
        """Return what the nodes on the targets' ways say."""
        nodes, path, sign = self.nodes, self.path, self.sign

        def losses(input: Tensor, target: Tensor) -> Tensor:
            turn = sign[target]
            scores = torch.einsum("nkd,nd->nk", nodes[path[target]], input).to(dtype)
            return torch.where(turn == 0, 0, F.softplus(-turn * scores)).sum(-1)

        return losses, max(1, self.path.shape[1]) * self.in_features

    def log_probabilities(self, input: Tensor) -> Tensor:
        """Return the logarithms of all leaves' probabilities, level by level."""
        scores = (input @ self.nodes.T).to(torch.promote_types(input.dtype, torch.float32))
        level, leaves, first = scores.new_zeros(len(input), 1), [], 1
        while first < 2 * self.num_classes:
            inner = min(max(self.num_classes - first, 0), level.shape[1])
            leaves.append(level[:, inner:])
            here = scores[:, first - 1 : first - 1 + inner]
            ways = torch.stack([F.logsigmoid(here), F.logsigmoid(-here)], -1)
            level = (level[:, :inner, None] + ways).flatten(1)
            first *= 2
        return torch.cat(leaves, 1)
