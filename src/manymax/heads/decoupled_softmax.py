"""Cross-entropy of each positive against the negatives alone, for tokens with several positives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.heads.cosine import CosineHead
from manymax.heads.head import Common

if TYPE_CHECKING:
    from typing_extensions import Unpack

Form = Literal["decoupled", "infonce", "bce"]


def decoupled_softmax_loss(scores: Tensor, target: Tensor, *, weighted: bool = False) -> Tensor:
    r"""Take the cross-entropy of each positive of a row against the row's negatives, without the other positives.

    $$L = \frac{1}{|P|} \sum_{l \in P} -\log \frac{e^{s_l}}{e^{s_l} + \sum_{j \notin P} e^{s_j}}$$

    Args:
        scores: $s$, (..., labels), any floating dtype.
        target: (..., labels), above 0 for the labels in $P$.
        weighted: multiply a positive's term by its target.

    Returns:
        The loss of each row, (...); 0 without a positive.

    Example:
        >>> import torch
        >>> from manymax.heads.decoupled_softmax import decoupled_softmax_loss
        >>> decoupled_softmax_loss(torch.tensor([5.0, 5.0, 5.0]), torch.tensor([1.0, 1.0, 0.0]))  # log 2
        tensor(0.6931)

    Source:
        Gupta et al., 2023, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636.
    """
    positive = target > 0
    # A finite number below all stands for "not there": a row of -inf alone would have NaN as its gradient.
    lowest = torch.finfo(scores.dtype).min
    rest = scores.masked_fill(positive, lowest).logsumexp(-1, keepdim=True)
    return _mean(F.softplus(torch.where(positive, rest - scores, 0)), target, weighted=weighted)


def infonce_loss(scores: Tensor, target: Tensor, *, weighted: bool = False) -> Tensor:
    """Return the sum over positives of the cross-entropy of the softmax over all labels; arguments as before."""
    terms = torch.where(target > 0, scores.logsumexp(-1, keepdim=True) - scores, 0)
    return (terms * target if weighted else terms).sum(-1)


def _mean(terms: Tensor, target: Tensor, *, weighted: bool) -> Tensor:
    """Return the mean of the positives' terms, 0 without a positive."""
    positive = target > 0
    kept = torch.where(positive, terms * target if weighted else terms, 0)
    return kept.sum(-1) / positive.sum(-1).clamp(min=1)


class DecoupledSoftmaxHead(CosineHead):
    r"""Cosines over a temperature and the decoupled softmax of tokens that may have several positives.

    $$L = \frac{1}{|P|} \sum_{l \in P} -\log \frac{e^{s_l}}{e^{s_l} + \sum_{j \notin P} e^{s_j}}, \qquad
    s_j = \frac{\cos(h, w_j)}{\tau}$$

    with $h$ the features, $w_j$ a label's row or a candidate, $P$ the labels of $h$ and $\tau$ the temperature. In a
    plain softmax a token's positives take probability from each other; here each has to beat the negatives alone. With
    one positive it is the same as cross-entropy.

    Args:
        in_features: length of $h$.
        num_classes: number of labels.
        temperature: $\tau$, above 0.
        form: "decoupled"; or a loss to compare it with: "infonce", the sum over $P$ of $-\log$ softmax, or "bce",
            the mean over all labels of the cross-entropy of a sigmoid.
        weighted: multiply a positive's term by its target; not with "bce".
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("decoupled-softmax", in_features=8, num_classes=3)
        >>> round(head(torch.zeros(1, 8), torch.tensor([[1.0, 1.0, 0.0]])).item(), 4)  # log 2
        0.6931

    Source:
        Gupta et al., 2023, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636. The authors' code
        gives other positives a score of -100, which is the same as leaving them out while scores stay far above; its
        InfoNCE is not divided by $|P|$ either.
    """

    soft_targets = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        temperature: float = 0.05,
        form: Form = "decoupled",
        weighted: bool = False,
        **common: Unpack[Common],
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        super().__init__(in_features, num_classes, scale=1 / temperature, **common)
        if form not in get_args(Form):
            raise ValueError(f"form: expected 'decoupled', 'infonce' or 'bce', got {form!r}")
        if weighted and form == "bce":
            raise ValueError("weighted: expected False where form is 'bce', got True")
        self.form, self.weighted = form, weighted

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the form."""
        if target.is_floating_point():
            target = target.to(scores.dtype)
        else:
            target = F.one_hot(target, scores.shape[-1]).to(scores.dtype)
        if self.form == "bce":
            return F.binary_cross_entropy_with_logits(scores, (target > 0).to(scores.dtype), reduction="none").mean(-1)
        if self.form == "infonce":
            return infonce_loss(scores, target, weighted=self.weighted)
        return decoupled_softmax_loss(scores, target, weighted=self.weighted)
