"""The contract list: every map, with its options varied, and for each an oracle written from the published formula.

An oracle takes the visible scores of one row (float64, one dim) and returns their weights; a matrix oracle takes a
matrix and what is visible of it. They share nothing with the package: numpy, plain formulas, loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import manymax as mm

Row = Callable[[np.ndarray], np.ndarray]


def exponential(extra=0.0, temperature=1.0, log=False):
    def row(x):
        x = x / temperature
        top = x.max() if extra == 0 else max(x.max(), 0)
        total = np.exp(x - top).sum() + extra * math.exp(-top)
        return x - top - np.log(total) if log else np.exp(x - top) / total

    return row


def pointwise(f: Callable[[float, int], float], temperature=1.0):
    return lambda x: np.array([f(float(s) / temperature, len(x)) for s in x])


def ratio(g: Callable[[float], float], extra: Callable[[int], float] = lambda n: 0.0, temperature=1.0, log=False):
    def row(x):
        values = np.array([g(float(s) / temperature) for s in x])
        total = values.sum() + extra(len(x))
        weights = values / total if total != 0 else values
        return np.log(weights) if log else weights

    return row


def _sigmoid(s):
    return 1 / (1 + math.exp(-s)) if s > 0 else math.exp(s) / (1 + math.exp(s))


def _softplus(s):
    return max(s, 0) + math.log1p(math.exp(-abs(s)))


def _stable(s):
    return s + 1 if s >= 0 else 1 / (1 - s)


def _taylor(order):
    return lambda s: sum(s**k / math.factorial(k) for k in range(order + 1))


def entmax(alpha, temperature=1.0):
    """Bisection in tau, to the last bit."""

    def row(x):
        scores = [(alpha - 1) * float(s) / temperature for s in x - x.max()]
        low, high = -1.0, 0.0
        for _ in range(200):
            middle = (low + high) / 2
            total = sum(max(s - middle, 0) ** (1 / (alpha - 1)) for s in scores)
            low, high = (middle, high) if total >= 1 else (low, middle)
        return np.array([max(s - low, 0) ** (1 / (alpha - 1)) for s in scores])

    return row


def topk(k, temperature=1.0):
    def row(x):
        cut = sorted(x, reverse=True)[min(k, len(x)) - 1]
        e = np.where(x >= cut, np.exp((x - x.max()) / temperature), 0)
        return e / e.sum()

    return row


def clipped(zeta, gamma, temperature=1.0):
    return lambda x: np.clip((zeta - gamma) * exponential(0.0, temperature)(x) + gamma, 0, 1)


def normalized(gain=1.0, bias=0.0, eps=1e-3, temperature=1.0):
    def row(x):
        x = x / temperature
        return gain * (x - x.mean()) / (x.std() + eps) + bias

    return row


def sinkhorn(iterations, eps=1.0, temperature=1.0):
    def matrix(x, visible):
        k = np.where(visible, np.exp(np.where(visible, x, 0) / (eps * temperature)), 0)
        for step in range(iterations):
            sums = k.sum(1 if step % 2 == 0 else 0, keepdims=True)
            k = k / np.where(sums == 0, 1, sums)
        return k

    return matrix


@dataclass(frozen=True)
class Case:
    """A map with options, its oracle, and what is true of it.

    Attributes:
        sums: whether a row sums to 1.
        shift: whether adding a constant to a row changes nothing.
        scale: whether a positive factor changes nothing.
        monotone: whether a higher score never weighs less.
        hidden: what an entry that is not visible gets.
        twice: whether second derivatives exist at the points tested.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    row: Row | None = None
    matrix: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    sums: bool = True
    shift: bool = False
    scale: bool = False
    monotone: bool = True
    hidden: float = 0.0
    twice: bool = True

    def __str__(self):
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def __call__(self, x, dim=-1, *, mask=None, **more):
        return getattr(mm, self.name)(x, dim=dim, mask=mask, **self.options, **more)

    @property
    def module(self):
        return mm.create_map(self.name, **self.options)

    def expected(self, x, dim=-1, mask=None):
        """Return the oracle's values in float64; -inf and masked entries are not there."""
        x = x.detach().double()
        if x.numel() == 0:
            return x
        visible = (x != -math.inf) & (torch.ones_like(x, dtype=torch.bool) if mask is None else mask)
        rows, shown = (
            np.atleast_2d(t.movedim(dim, -1).numpy()) if x.dim() else t.numpy().reshape(1, 1) for t in (x, visible)
        )
        out = np.full(rows.shape, self.hidden)
        for index in np.ndindex(*rows.shape[:-2]):
            if self.matrix:
                out[index] = np.where(shown[index], self.matrix(rows[index], shown[index]), self.hidden)
                continue
            for i, (row, show) in enumerate(zip(rows[index], shown[index], strict=True)):
                if show.any():
                    out[(*index, i, show)] = self.row(row[show])
        moved = x.movedim(dim, -1) if x.dim() else x
        out = torch.from_numpy(out).reshape(moved.shape)
        return out.movedim(-1, dim) if x.dim() else out


LOG = {"sums": False, "hidden": -math.inf}
FREE = {"sums": False}  # weights that need not sum to 1

CASES = [
    Case("softmax", {}, exponential(), shift=True),
    Case("softmax", {"temperature": 0.5}, exponential(temperature=0.5), shift=True),
    Case("log_softmax", {"temperature": 2.0}, exponential(temperature=2.0, log=True), shift=True, **LOG),
    Case("softmax1", {}, exponential(1.0), **FREE),
    Case("softmax1", {"temperature": 0.5}, exponential(1.0, 0.5), **FREE),
    Case("sigmoid", {}, pointwise(lambda s, n: _sigmoid(s - math.log(n))), **FREE),
    Case("sigmoid", {"bias": -1.5, "temperature": 2.0}, pointwise(lambda s, n: _sigmoid(s - 1.5), 2.0), **FREE),
    Case("relu", {}, pointwise(lambda s, n: max(s, 0) / n), **FREE),
    Case("relu", {"temperature": 0.5}, pointwise(lambda s, n: max(s, 0) / n, 0.5), **FREE),
    Case("squared_relu", {"temperature": 2.0}, pointwise(lambda s, n: max(s, 0) ** 2 / n, 2.0), **FREE),
    Case("softplus", {}, ratio(_softplus)),
    Case("softplus", {"temperature": 0.5}, ratio(_softplus, temperature=0.5)),
    Case("stablemax", {}, ratio(_stable)),
    Case("stablemax", {"temperature": 0.5}, ratio(_stable, temperature=0.5)),
    Case("log_stablemax", {"temperature": 0.5}, ratio(_stable, temperature=0.5, log=True), **LOG),
    Case("power_softmax", {}, ratio(lambda s: s**4), scale=True, monotone=False),
    Case("power_softmax", {"p": 2, "temperature": 0.5}, ratio(lambda s: s**2), scale=True, monotone=False),
    Case(
        "power_softmax",
        {"p": 6, "eps": 0.1, "temperature": 2.0},
        ratio(lambda s: s**6, lambda n: 0.1, 2.0),
        monotone=False,
        **FREE,
    ),
    Case(
        "power_softmax",
        {"p": 2, "eps": 0.5, "length_agnostic": True},
        ratio(lambda s: s**2, lambda n: 0.5 * n),
        monotone=False,
        **FREE,
    ),
    Case("taylor_softmax", {}, ratio(_taylor(2)), monotone=False),
    Case("taylor_softmax", {"order": 4, "temperature": 0.5}, ratio(_taylor(4), temperature=0.5), monotone=False),
    Case("spherical_softmax", {}, ratio(lambda s: s**2 + 1e-5), monotone=False),
    Case("spherical_softmax", {"eps": 0.0}, ratio(lambda s: s**2), scale=True, monotone=False),
    Case(
        "spherical_softmax",
        {"eps": 0.3, "temperature": 2.0},
        ratio(lambda s: s**2 + 0.3, temperature=2.0),
        monotone=False,
    ),
    Case("sparsemax", {}, entmax(2.0), shift=True),
    Case("sparsemax", {"temperature": 2.0}, entmax(2.0, 2.0), shift=True),
    Case("entmax15", {}, entmax(1.5), shift=True),
    Case("entmax15", {"temperature": 0.5}, entmax(1.5, 0.5), shift=True),
    Case("entmax", {}, entmax(1.5), shift=True),
    Case("entmax", {"alpha": 1.0, "temperature": 2.0}, exponential(temperature=2.0), shift=True),
    Case("entmax", {"alpha": 1.0001}, entmax(1.0001), shift=True),
    Case("entmax", {"alpha": 1.3, "temperature": 0.5}, entmax(1.3, 0.5), shift=True),
    Case("entmax", {"alpha": 2}, entmax(2.0), shift=True),
    Case("entmax", {"alpha": 2.7}, entmax(2.7), shift=True),
    Case("topk_softmax", {}, topk(8), shift=True),
    Case("topk_softmax", {"k": 3, "temperature": 0.5}, topk(3, 0.5), shift=True),
    Case("topk_softmax", {"k": 1}, topk(1), shift=True, scale=True),
    Case("clipped_softmax", {}, clipped(1.0, -0.03), shift=True, **FREE),
    Case(
        "clipped_softmax", {"zeta": 1.2, "gamma": -0.1, "temperature": 0.5}, clipped(1.2, -0.1, 0.5), shift=True, **FREE
    ),
    Case("clipped_softmax", {"gamma": 0.0}, exponential(), shift=True),
    Case("sinkhorn", {}, matrix=sinkhorn(3), shift=True, monotone=False),
    Case("sinkhorn", {"iterations": 1}, exponential(), shift=True),
    Case(
        "sinkhorn",
        {"iterations": 7, "eps": 0.5, "temperature": 2.0},
        matrix=sinkhorn(7, 0.5, 2.0),
        shift=True,
        monotone=False,
    ),
    Case("normalized", {}, normalized(), shift=True, **FREE),
    Case(
        "normalized",
        {"gain": 2.0, "bias": 0.3, "eps": 0.1, "temperature": 0.5},
        normalized(2.0, 0.3, 0.1, 0.5),
        shift=True,
        **FREE,
    ),
]
WEIGHTS = [case for case in CASES if case.hidden == 0]
LIMIT = {torch.float16: 6e4, torch.bfloat16: 1e4, torch.float32: 1e4, torch.float64: 1e4}


def named(cases):
    """Return pytest parameters with readable names."""
    import pytest

    return [pytest.param(case, id=str(case)) for case in cases]


def scores(*shape, seed=0, dtype=torch.float64, spread=1.5):
    """Return reproducible scores."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * spread).to(dtype)


def random_mask(*shape, seed=0, keep=0.6):
    """Return a reproducible mask."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < keep
