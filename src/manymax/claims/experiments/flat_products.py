"""Products of a few tokens with a layer's weights: by vectors, padded to eight, or as they are (Hong et al., 2023).

A decoding step multiplies M tokens, one for each text of the batch, with each matrix of weights. The paper's table
says for each shape of weights which of three implementations serves M: matrix-vector products below M1, a flat product
padded to a multiple of 8 from M1 to M2, the library's ordinary product from M2 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.claims.claim import Metrics
from manymax.claims.experiments.costs import one_thread
from manymax.claims.experiments.timing import best_times

PAD = 8


def by_vectors(input: Tensor, weight: Tensor) -> Tensor:
    """Return input (M, K) times the transpose of weight (N, K), one token at a time."""
    return torch.stack([weight.mv(token) for token in input])


def flat(input: Tensor, weight: Tensor) -> Tensor:
    """Return the same from as many tokens as the next multiple of eight; those that are added are zeros."""
    tokens = len(input)
    return F.linear(F.pad(input, (0, 0, 0, -tokens % PAD)), weight)[:tokens]


FORMS = (by_vectors, flat, F.linear)


@one_thread()
def seconds(shape: tuple[int, int], tokens: Sequence[int], rounds: int, turn: float, seed: int) -> list[list[float]]:
    """Return for each number of tokens the seconds of the three forms, on one thread.

    Args:
        shape: of the weights, (N, K).
        tokens: numbers of tokens M.
        rounds: in which all forms take turns; the best one counts.
        turn: seconds of a turn, at least.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    inputs = [torch.randn(count, shape[1], generator=generator) for count in tokens]
    return [best_times([partial(form, x, weight) for form in FORMS], rounds, turn) for x in inputs]


def table(tokens: Sequence[int], times: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Return (M1, M2), the bounds that make the sum of the chosen forms' relative times smallest.

    A bound past the largest number of tokens measured says that the form behind it is never chosen; equal bounds, that
    the padded one is not.
    """
    past = len(tokens)
    ends = [*tokens, tokens[-1] + 1]

    def cost(first: int, second: int) -> float:
        chosen = [0 if i < first else 1 if i < second else 2 for i in range(past)]
        return sum(row[form] / min(row) for row, form in zip(times, chosen, strict=True))

    pairs = [(first, second) for first in range(past + 1) for second in range(first, past + 1)]
    first, second = min(pairs, key=lambda pair: cost(*pair))
    return ends[first], ends[second]


def flat_metrics(
    seed: int, shapes: Sequence[Sequence[int]], tokens: Sequence[int], rounds: int, turn: float
) -> Metrics:
    """Return what the tables of all shapes choose, and what they gain over the ordinary product on average."""
    bounds, gains, padded = [], [], []
    for rows, columns in shapes:
        times = seconds((rows, columns), tokens, rounds, turn, seed)
        first, second = table(tokens, times)
        bounds.append(first)
        for count, row in zip(tokens, times, strict=True):
            padded.append(first <= count < second)
            gains.append(row[2] / row[0 if count < first else 1 if padded[-1] else 2])
    return {
        "flat_vectors_below": float(max(bounds)),
        "flat_padded_share": sum(padded) / len(padded),
        "flat_table_gain": sum(gains) / len(gains),
    }
