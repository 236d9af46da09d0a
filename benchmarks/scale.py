"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes and time.

    Attributes:
        name: goes into the results.
        seconds: for the rounds of a case.
        heads: of a forward pass, by length; fewer for longer ones, so that a case takes about as long.
        head_dims: of forward passes and of training.
        keys: of decoding.
        length: of the comparison of maps, and of eager formulas.
        short: lengths of short work.
        recurrence: lengths of linear attention: the shortest, the one of most comparisons, and the longest.
        output: tokens and classes of output layers.
        context: tokens of whole models: to read, in a cache, to train on.
    """

    name: str
    seconds: float
    heads: dict[int, int]
    head_dims: tuple[int, ...]
    keys: int
    length: int
    short: tuple[int, ...]
    recurrence: tuple[int, int, int]
    output: tuple[int, int]
    context: tuple[int, int, int]


FULL = Scale(
    "full",
    3.0,
    {1024: 8, 4096: 4, 16384: 1},
    (64, 128),
    32768,
    4096,
    (64, 128, 256),
    (2048, 8192, 32768),
    (2048, 50257),
    (4096, 8192, 2048),
)
QUICK = Scale(
    "quick",
    0.3,
    {1024: 4, 4096: 1},
    (64,),
    32768,
    1024,
    (64, 256),
    (2048, 4096, 16384),
    (512, 8192),
    (1024, 4096, 512),
)
