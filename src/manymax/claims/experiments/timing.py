"""Times of several works in turn, so that what else the machine does falls on all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence


def best_times(
    works: Sequence[Callable[[], object]],
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.process_time,
) -> list[float]:
    """Return the shortest time of each work over rounds in which all take turns, every other one backwards.

    Args:
        works: called without arguments.
        rounds: how many; one more comes first, which warms up and finds the number of calls.
        seconds: that a turn takes at least, in as many calls as that needs.
        clock: seconds since some moment. The processor time of this process leaves out the time in which other
            processes run; it serves for work on one thread.
    """
    calls = []
    for work in works:
        work()
        begun = clock()
        work()
        calls.append(max(1, math.ceil(seconds / max(clock() - begun, 1e-7))))
    best = [math.inf] * len(works)
    for number in range(rounds):
        order = range(len(works)) if number % 2 else range(len(works) - 1, -1, -1)
        for index in order:
            begun = clock()
            for _ in range(calls[index]):
                works[index]()
            best[index] = min(best[index], (clock() - begun) / calls[index])
    return best
