"""Linear classes under a loss of the spherical family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from manymax.heads.head import Common, Head
from manymax.heads.spherical import SphericalLoss, SphericalName

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SphericalHead(Head):
    r"""Linear classes and the Z-loss of their scores, or another loss of the spherical family.

    $$L = \frac{1}{a} \log\left(1 + e^{a (b - z_c)}\right), \qquad z_c = \frac{o_c - \mu}{\sigma}, \qquad o = W h + v$$

    with $h$ the features, $W$ and $v$ the head's weight and bias, $o$ one score a class, $\mu$ and $\sigma$ their mean
    and standard deviation and $c$ the target. $L$ does not change when all scores are moved or scaled alike. The other
    losses are the squared distance of the scores from the one-hot target, and the negative log-likelihoods of spherical
    softmax, $p_k \propto o_k^2 + \epsilon$, and of Taylor softmax, $p_k \propto 1 + o_k + o_k^2 / 2$.

    All of them see of the scores only $o_c$, $\sum_k o_k$ and $\sum_k o_k^2$: `SphericalOutput` trains the same classes
    by SGD at a cost that does not depend on their number. This head has any number of classes cost what it does
    elsewhere, and works with any optimizer.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        loss: "z", "mse", "spherical" or "taylor".
        a: how sharply the Z-loss bends, above 0.
        b: where it bends: a target that many standard deviations above the mean is well placed.
        eps: $\epsilon$ of spherical softmax, above 0.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target is not int64 or has another shape than the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("z-loss-spherical", in_features=8, num_classes=4, a=1.0, b=0.0)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item()  # equal scores: log 2
        0.6931471824645996

    Source:
        de Brébisson and Vincent, 2016, The Z-loss: a shift and scale invariant classification loss belonging to the
        Spherical Family, arXiv:1604.08859; the other losses: de Brébisson and Vincent, 2016, An Exploration of Softmax
        Alternatives Belonging to the Spherical Loss Family, arXiv:1511.05042. The papers tune $a$, $b$ and $\epsilon$
        to the data. Their values could not be looked up: the defaults of $a$ and $b$ are recalled, for vocabularies of
        thousands of words. The authors' example (pascal20100/factored_output_layer) has $a = 1$ and $b = 0$.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        loss: SphericalName = "z",
        a: float = 0.1,
        b: float = 10.0,
        eps: float = 0.01,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        self.loss = SphericalLoss(loss, a, b, eps)

    def logits(self, input: Tensor) -> Tensor:
        """Return one score a class, (..., num_classes), in the input's dtype.

        For "spherical" and "taylor" it is the logarithm of the class's share, since the most probable class is not the
        one whose linear score is the highest.
        """
        return self.loss.logits(super().logits(input))

    def log_weights(self, scores: Tensor) -> Tensor:
        """Return the logarithms of the classes' probabilities along the last dim.

        The scores of "mse" estimate the probabilities: those below a thousandth of an even share are raised to it. The
        Z-loss has no probabilities; softmax of the standardised scores stands in.
        """
        return self.loss.log_weights(scores)

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each token."""
        return self.loss(scores, target)
