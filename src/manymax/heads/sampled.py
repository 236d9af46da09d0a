"""Softmax over a sample of classes while training, over all of them otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from manymax.heads.chunk import Linear, reduce, wide
from manymax.heads.head import Common, Head
from manymax.heads.structured import by_chunks

if TYPE_CHECKING:
    from typing_extensions import Unpack

Distribution = Literal["log-uniform", "uniform"]


def draw(count: int, classes: int, distribution: Distribution, device: torch.device) -> Tensor:
    """Return so many classes, int64 (count,), drawn with replacement from torch's global generator."""
    if distribution == "uniform":
        return torch.randint(classes, (count,), device=device)
    even = torch.rand(count, dtype=torch.float64, device=device)
    return torch.expm1(even * math.log(classes + 1)).long().clamp_max(classes - 1)


def log_chance(chosen: Tensor, classes: int, distribution: Distribution) -> Tensor:
    """Return the logarithm of the probability with which `draw` draws each class, in float64."""
    if distribution == "uniform":
        return torch.full(chosen.shape, -math.log(classes), dtype=torch.float64, device=chosen.device)
    low = chosen.double()
    return (torch.log1p(1 / (low + 1)) / math.log(classes + 1)).log()


class SampledSoftmaxHead(Head):
    r"""Linear classes, and cross-entropy against a few classes that are drawn anew for each batch.

    $$L = -\log \frac{e^{z_y}}{e^{z_y} + \sum_{j \in S,\, j \ne y} e^{z_j - \log(m q_j)}}, \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $y$ the target and $S$ a sample of $m$ classes, with
    replacement, of probabilities $q$, shared by all tokens of the batch. Taking $\log(m q_j)$ from a score makes the
    sum the true one in expectation, so that $L$ tends to softmax's cross-entropy as $m$ grows; a draw of the target
    itself is left out. In evaluation, and where $m$ is not below the number of classes, nothing is drawn and the loss
    is softmax's over all classes.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        num_samples: $m$.
        distribution: "log-uniform", $q_j \propto \log(1 + 1 / (j + 1))$, for classes that are sorted, the most
            frequent first, with frequencies near Zipf's law; or "uniform".
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("sampled-softmax", in_features=8, num_classes=5000, num_samples=64)
        >>> x, target = torch.randn(3, 8), torch.tensor([0, 10, 4000])
        >>> torch.equal(head(x, target), head(x, target)), torch.equal(head.eval()(x, target), head(x, target))
        (False, True)

    Source:
        Bengio and Senécal, 2008, Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
        Model, IEEE Transactions on Neural Networks 19; Jean et al., 2014, On Using Very Large Target Vocabulary for
        Neural Machine Translation, arXiv:1412.2007, where the target's score is corrected, too.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        distribution: Distribution = "log-uniform",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if num_samples < 1:
            raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
        if distribution not in {"log-uniform", "uniform"}:
            raise ValueError(f"distribution: expected 'log-uniform' or 'uniform', got {distribution!r}")
        self.num_samples, self.distribution = num_samples, distribution

    def reduced(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the loss of features, against a sample while training."""
        if not self.training or self.num_samples >= self.num_classes:
            return super().reduced(linear, target)
        self.check(linear, target)
        kept = target != self.ignore_index
        return reduce(self.sampled(linear._replace(input=linear.input[kept]), target[kept]), kept, self.reduction)

    def sampled(self, linear: Linear, target: Tensor) -> Tensor:
        """Return the losses of tokens (N, d) against one sample, (N,)."""
        dtype = torch.float64 if self.float64 else wide(linear.input.dtype)
        chosen = draw(self.num_samples, len(linear.rows), self.distribution, target.device)
        more = -(log_chance(chosen, len(linear.rows), self.distribution) + math.log(self.num_samples)).to(dtype)
        own = torch.zeros((), dtype=dtype, device=target.device).expand(len(target))
        if linear.bias is not None:
            more, own = more + linear.bias[chosen], own + linear.bias[target]
        rows = linear.rows[chosen]

        def piece(input: Tensor, row: Tensor, offset: Tensor, wanted: Tensor) -> Tensor:
            score = (input * row).to(dtype).sum(-1) + offset
            others = (input @ rows.T).to(dtype) + more
            others = others.masked_fill(chosen == wanted[:, None], -torch.inf)
            return torch.cat([score[:, None], others], 1).logsumexp(1) - score

        tokens = (linear.input, linear.rows[target], own, target)
        losses = by_chunks(piece, tokens, self.num_samples + self.in_features, self.chunk_size)
        return losses.to(wide(linear.input.dtype))
