"""Adaptive softmax: frequent classes at full width, rare ones in clusters of less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manymax.heads.head import Common
from manymax.heads.structured import StructuredHead

if TYPE_CHECKING:
    from typing_extensions import Unpack

NARROWEST = 8  # features that the last cluster keeps by default, if there are as many


def default_cutoffs(num_classes: int) -> list[int]:
    """Return a twentieth and a fifth of the classes: with frequencies by Zipf's law most tokens are in the first."""
    return sorted({min(max(1, num_classes // part), num_classes - 1) for part in (20, 5)})


class AdaptiveSoftmaxHead(StructuredHead):
    r"""Classes in clusters by frequency: the rarer, the fewer features they are told apart by.

    $$p(y) = p(c) \, p(y \mid c), \qquad p(\cdot) = \operatorname{softmax}(W h), \qquad
    p(\cdot \mid c) = \operatorname{softmax}(V_c P_c h)$$

    with $h$ the features, the head $W$, whose scores are those of the frequent classes and of the clusters $c$, and
    for each cluster a map $P_c$ to $d / r^{i}$ features, $i = 1, 2, \dots$, and its classes' rows $V_c$. A frequent
    class is its own cluster. A token costs the head, and its own cluster only. It is torch's
    `nn.AdaptiveLogSoftmaxWithLoss`, in `.adaptive`. Classes must be sorted, the most frequent first.

    Args:
        in_features: $d$, the length of $h$.
        num_classes: number of classes, at least 2.
        cutoffs: the first class of each cluster, increasing; None is a twentieth and a fifth of the classes.
        div_value: $r$; None is 4, or less where the last cluster would keep fewer than 8 features.
        head_bias: whether the head's scores have a bias.
        **common: the options of every head but `bias`.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("adaptive-softmax", in_features=8, num_classes=100)
        >>> head.adaptive.cutoffs
        [5, 20, 100]
        >>> round(head.logits(torch.randn(3, 8)).exp().sum().item(), 4)
        3.0

    Source:
        Grave et al., 2016, Efficient softmax approximation for GPUs, arXiv:1609.04309.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        cutoffs: Sequence[int] | None = None,
        div_value: float | None = None,
        head_bias: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, one of them in a cluster, got {num_classes}")
        cuts = default_cutoffs(num_classes) if cutoffs is None else list(cutoffs)
        if not cuts or cuts != sorted(set(cuts)) or not 0 < cuts[0] <= cuts[-1] < num_classes:
            raise ValueError(f"cutoffs: expected increasing numbers in [1, {num_classes - 1}], got {cuts}")
        if div_value is None:
            div_value = min(4.0, (in_features / min(in_features, NARROWEST)) ** (1 / len(cuts)))
        if not div_value > 0 or int(in_features // div_value ** len(cuts)) < 1:
            raise ValueError(f"div_value: expected to leave the last cluster a feature, got {div_value!r}")
        self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(
            in_features, num_classes, cuts, div_value=div_value, head_bias=head_bias
        )

    def way(self, dtype: torch.dtype) -> tuple[Callable[[Tensor, Tensor], Tensor], int]:
        """Return torch's losses, of parameters as they are now."""
        module = self.adaptive
        held = {name: parameter.to(dtype) for name, parameter in module.named_parameters()}

        def losses(input: Tensor, target: Tensor) -> Tensor:
            with torch.autocast(input.device.type, enabled=False):  # under which torch's module fails
                found: Tensor = -functional_call(module, held, (input.to(dtype), target)).output
            return found

        return losses, self.num_classes

    def log_probabilities(self, input: Tensor) -> Tensor:
        """Return torch's logarithms."""
        with torch.autocast(input.device.type, enabled=False):
            logs: Tensor = self.adaptive.log_prob(input.to(self.adaptive.head.weight.dtype))
        return logs
