"""Classes that are neighbours on a line: the density of a short Fourier series."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from manymax.heads.chunk import SCORES, Linear, wide
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FourierHead(Head):
    r"""Ordered classes as bins of [-1, 1], weighed by a density that is a Fourier series of few frequencies.

    $$p(x) = \frac{1}{2} + \operatorname{Re} \sum_{k=1}^N \frac{c_k}{c_0} e^{i k \pi x}, \qquad
    c_k = \sum_{l=0}^{N-k} a_l \overline{a_{l+k}}, \qquad (\operatorname{Re} a, \operatorname{Im} a) = W h + b$$

    $$L = -\log \frac{p(b_y)}{\sum_j p(b_j)} + \gamma \frac{2 \pi^2}{m} \sum_{k=1}^N k^2 |c_k|^2, \qquad
    b_j = -1 + \frac{1 + 2 j}{m}$$

    with $h$ the features, $W$ and $b$ the head's coefficients and bias, $m$ the number of classes, $b_j$ the middle of
    a class's bin and $y$ the target. As $p(x) = |\sum_l a_l e^{-i l \pi x}|^2 / 2 c_0$ it is never negative, and as
    $N < m$ the sum over bins is $m / 2$: a token's loss takes $N$ numbers, not $m$. The scale of $a$ counts only in
    the penalty.

    Args:
        in_features: length of $h$.
        num_classes: $m$.
        frequencies: $N < m$, how fine a density may be; None is 12, or $m - 1$ if that is less.
        gamma: $\gamma \ge 0$, the price of high frequencies. It is part of each token's loss.
        eps: is added to the probability before the logarithm is taken; the authors' code has 1e-5.
        **common: the options of every head; a bias has a number for each coefficient.

    Attributes:
        coefficients: $W$, (2 (N + 1), in_features), the real parts first.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("fourier-head", in_features=8, num_classes=50)
        >>> torch.testing.assert_close(head.logits(torch.randn(8)).exp().sum(), torch.tensor(1.0))

    Source:
        Gillman et al., 2024, Fourier Head: Helping Large Language Models Learn Complex Probability Distributions,
        arXiv:2410.22269. The authors' code conjugates $c_k$, which mirrors the density, has a factor of $4 \pi^2$ in
        the penalty, which its default leaves out, and starts from coefficients 100 times smaller.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        frequencies: int | None = None,
        gamma: float = 1e-6,
        eps: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        frequencies = min(12, num_classes - 1) if frequencies is None else frequencies
        if not 0 <= frequencies < num_classes:
            raise ValueError(f"frequencies: expected a number in [0, {num_classes - 1}], got {frequencies}")
        if not gamma >= 0:
            raise ValueError(f"gamma: expected at least 0, got {gamma!r}")
        if not eps >= 0:
            raise ValueError(f"eps: expected at least 0, got {eps!r}")
        self.frequencies, self.gamma, self.eps = frequencies, gamma, eps
        count = 2 * (frequencies + 1)
        del self.weight
        self.coefficients = nn.Parameter(torch.empty(count, in_features))
        nn.init.normal_(self.coefficients, std=in_features**-0.5)
        self.bias = None if self.bias is None else nn.Parameter(torch.zeros(count))
        if self.chunk_size is None:
            self.chunk_size = max(1, SCORES // max(count, num_classes))  # `predict` and `nll` see all classes

    def scored(self, input: Tensor) -> Linear:
        """Return the linear map to the coefficients."""
        return Linear(input, self.coefficients, self.bias)

    def check(self, linear: Linear, target: Tensor) -> None:
        """Refuse shapes and dtypes that do not fit; targets are classes, not coefficients."""
        super().check(linear._replace(rows=linear.rows[:1].expand(self.num_classes, -1)), target)

    def probability(self, scores: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the probabilities of the targets (n,), or of all classes (..., m), for coefficients (..., 2 (N + 1)).

        Where all coefficients are 0 the density is even.
        """
        every = torch.arange(self.num_classes, device=scores.device)
        cosines, sines = self.waves(every if target is None else target, scores.dtype)
        largest = scores.detach().abs().amax(-1, keepdim=True)
        real, imaginary = (scores / torch.where(largest > 0, largest, 1)).chunk(2, dim=-1)
        if target is None:
            wave = (real @ cosines.T + imaginary @ sines.T).square() + (imaginary @ cosines.T - real @ sines.T).square()
        else:
            wave = (real * cosines + imaginary * sines).sum(-1).square()
            wave = wave + (imaginary * cosines - real * sines).sum(-1).square()
        power = (real.square() + imaginary.square()).sum(-1)
        power, some = (power[..., None], largest > 0) if target is None else (power, largest[..., 0] > 0)
        return torch.where(some, wave / torch.where(some, power, 1), 1) / self.num_classes

    def waves(self, classes: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cos and sin of l pi b_j, (n, N + 1), of classes j (n,)."""
        count = self.num_classes
        order = torch.arange(self.frequencies + 1, device=classes.device)
        turns = (2 * classes[:, None] + 1 - count) * order % (2 * count)  # of pi / m, in integers and so exact
        angles = turns.to(dtype) * (math.pi / count)
        return angles.cos(), angles.sin()

    def logits(self, input: Tensor) -> Tensor:
        """Return the logarithms of the classes' probabilities, (..., num_classes), in the input's dtype."""
        scores = super().logits(input)
        return self._log(self.probability(scores.to(wide(scores.dtype)))).to(scores.dtype)

    def _log(self, probability: Tensor) -> Tensor:
        return (probability + self.eps).clamp_min(torch.finfo(probability.dtype).tiny).log()

    def losses(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy and penalty for rows of coefficients (n, 2 (N + 1))."""
        loss = -self._log(self.probability(scores, target))
        if not self.gamma:
            return loss
        order = torch.arange(self.frequencies + 1, device=scores.device)
        squares = autocorrelation(scores).abs().square()
        return loss + self.gamma * 2 * math.pi**2 / self.num_classes * (order.square() * squares).sum(-1)


def autocorrelation(scores: Tensor) -> Tensor:
    """Return c_k = sum_l a_l conj(a_(l+k)), complex (n, N + 1), for the parts of a, (n, 2 (N + 1))."""
    series = torch.complex(*scores.chunk(2, dim=-1))
    count = series.shape[-1]
    spectrum = torch.fft.fft(series, 2 * count)
    found: Tensor = torch.fft.ifft(spectrum.abs().square(), dim=-1)[..., :count].conj()
    return found
