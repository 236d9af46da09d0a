"""Functions that are not polynomials, replaced by polynomials on the range where they are needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from torch import Tensor, nn


class Approximation(nn.Module):
    """A function that is itself and remembers the range of its input, until `fit` makes it a polynomial.

    Args:
        tolerance: the largest error of the polynomial on the fitted range.
        margin: factor by which the fitted range is wider than the measured one.

    Attributes:
        degree: factors, iterations or degree of the polynomial; 0 before `fit`.
    """

    def __init__(self, tolerance: float, margin: float) -> None:
        super().__init__()
        self.tolerance, self.margin = tolerance, margin
        self.low, self.high = math.inf, -math.inf
        self.degree = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of x, or its polynomial."""
        if self.degree:
            return self.polynomial(x)
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        return self.exact(x)

    def exact(self, x: Tensor) -> Tensor:
        """Return the function."""
        raise NotImplementedError

    def polynomial(self, x: Tensor) -> Tensor:
        """Return the polynomial, by sums and products alone."""
        raise NotImplementedError

    def fit(self) -> None:
        """Choose the polynomial for the measured range."""
        raise NotImplementedError


class Reciprocal(Approximation):
    r"""1 / x by Goldschmidt's product, for x in [l, h].

    $$\frac{1}{x} \approx c \prod_{i < k} \left(1 + e^{2^i}\right), \qquad e = 1 - c x, \qquad c = \frac{2}{l + h}$$

    The relative error is exactly $e^{2^k}$, at most $((h - l) / (h + l))^{2^k}$.
    """

    def exact(self, x: Tensor) -> Tensor:
        """Return 1 / x."""
        return 1 / x

    factor: float

    def fit(self) -> None:
        """Take as many factors as the tolerance asks for."""
        low, high = self.low / self.margin, self.high * self.margin
        self.factor = 2 / (low + high)
        largest = (high - low) / (high + low)
        self.degree = 1
        while largest**2**self.degree > self.tolerance:
            self.degree += 1

    def polynomial(self, x: Tensor) -> Tensor:
        """Multiply the factors."""
        error = 1 - self.factor * x
        product = self.factor * (1 + error)
        for _ in range(self.degree - 1):
            error = error * error
            product = product * (1 + error)
        return product


class InverseSqrt(Approximation):
    r"""1 / sqrt(x) by Newton's iteration $y \leftarrow y (3 - x y^2) / 2$ from $1 / \sqrt{h}$, for x in [l, h].

    From there y grows towards the result for every x, slowest for x = l, whose error says when to stop.
    """

    def exact(self, x: Tensor) -> Tensor:
        """Return 1 / sqrt(x)."""
        return x.rsqrt()

    start: float

    def fit(self) -> None:
        """Iterate for x = l until the relative error is below the tolerance."""
        low, high = self.low / self.margin, self.high * self.margin
        self.start = high**-0.5
        share, self.degree = (low / high) ** 0.5, 0  # y sqrt(x), which tends to 1
        while self.degree == 0 or 1 - share > self.tolerance:
            share *= (3 - share**2) / 2
            self.degree += 1

    def polynomial(self, x: Tensor) -> Tensor:
        """Iterate; the first time from a constant."""
        y = self.start * (1.5 - (0.5 * self.start**2) * x)
        for _ in range(self.degree - 1):
            y = y * (1.5 - 0.5 * x * y * y)
        return y


class SiLU(Approximation):
    """x sigmoid(x) by Chebyshev interpolation on [-b, b], b the largest |x|; the error is absolute."""

    def exact(self, x: Tensor) -> Tensor:
        """Return x sigmoid(x)."""
        return nn.functional.silu(x)

    scale: float
    coefficients: list[float]

    def fit(self) -> None:
        """Raise the degree until the largest error on a fine grid is below the tolerance."""
        bound = self.margin * max(abs(self.low), abs(self.high))

        def stretched(t: Any) -> Any:
            return bound * t / (1 + np.exp(-bound * t))

        grid = np.linspace(-1, 1, 4001)
        error = np.inf
        while error > self.tolerance:
            self.degree += 2
            coefficients = chebyshev.chebinterpolate(stretched, self.degree)
            error = np.abs(chebyshev.chebval(grid, coefficients) - stretched(grid)).max()
        self.scale, self.coefficients = 1 / bound, coefficients.tolist()

    def polynomial(self, x: Tensor) -> Tensor:
        """Sum the Chebyshev polynomials from the highest down, by Clenshaw's recurrence."""
        t = x * self.scale
        last: Any = self.coefficients[-1]
        before: Any = 0.0
        for coefficient in self.coefficients[-2:0:-1]:
            last, before = coefficient + 2 * t * last - before, last
        return self.coefficients[0] + t * last - before  # type: ignore[no-any-return]
