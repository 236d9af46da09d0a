"""The fused output layer as a module, for training loops that hold their losses as such."""

from __future__ import annotations

from torch import Tensor, nn

from manymax.heads.chunk import Reduction
from manymax.heads.linear_cross_entropy import linear_cross_entropy


class LinearCrossEntropyLoss(nn.Module):
    r"""`linear_cross_entropy` with its options set once; it owns no rows, `create_head("softmax")` does.

    $$L = \sum_c w_c \, p_c \Big(\log \sum_j e^{z_j} - z_c\Big), \qquad z = W h + b$$

    with $h$ a token's input, $W$ and $b$ the linear weight and bias given with a call, $p$ the target's probabilities
    and $w$ the classes' weights; `linear_cross_entropy` has the whole formula.

    Args:
        weight: $w$, (C,), kept as a buffer; None is 1.
        reduction: "mean", "sum" or "none".
        ignore_index: a target that takes no part.
        label_smoothing: in [0, 1].
        softcap: the bound of the scores; None is none.
        lse_penalty: a factor of the squared logarithm of the sum, at least 0.
        return_lse: whether to return that logarithm too.
        filter_eps: share below which gradients of scores may be left out, in [0, 1).
        chunk_size: tokens whose scores exist at once; None takes as many as 16 MiB of scores allow, in native kernels
            18 MB, 36 for bfloat16, or a sixteenth of the rows' size.

    Raises:
        ValueError: in a call, if a shape, a dtype or an option does not fit.

    Example:
        >>> import torch
        >>> from manymax.heads.linear_cross_entropy_loss import LinearCrossEntropyLoss
        >>> loss = LinearCrossEntropyLoss(label_smoothing=0.1)
        >>> round(loss(torch.zeros(6, 8), torch.zeros(50, 8), torch.arange(6)).item(), 4)  # log 50
        3.912

    Source:
        As `linear_cross_entropy`: Hsu et al., 2024, Liger Kernel, arXiv:2410.10989, and Wijmans et al., 2024, Cut Your
        Losses in Large-Vocabulary Language Models, arXiv:2411.09009.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        softcap: float | None = None,
        lse_penalty: float = 0.0,
        return_lse: bool = False,
        filter_eps: float = 0.0,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.reduction, self.ignore_index, self.label_smoothing = reduction, ignore_index, label_smoothing
        self.softcap, self.lse_penalty, self.return_lse = softcap, lse_penalty, return_lse
        self.filter_eps, self.chunk_size = filter_eps, chunk_size

    def forward(
        self,
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        *,
        linear_bias: Tensor | None = None,
        token_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss, or (loss, lse). Arguments as in `linear_cross_entropy`."""
        return linear_cross_entropy(
            input,
            linear_weight,
            target,
            linear_bias=linear_bias,
            weight=self.weight,
            token_weight=token_weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            softcap=self.softcap,
            lse_penalty=self.lse_penalty,
            return_lse=self.return_lse,
            filter_eps=self.filter_eps,
            chunk_size=self.chunk_size,
        )
