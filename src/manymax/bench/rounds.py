"""Samples long enough to time, and as many rounds of them as the time allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manymax.compare.rounds import play, stopwatch

Call = Callable[[], object]  # what a call returns is dropped at once, so that every side frees its output alike
SAMPLE_SECONDS = 2e-3  # 10^4 times what reading the clock costs


@dataclass(frozen=True)
class Sample:
    """A call repeated until it lasts `SAMPLE_SECONDS`.

    Attributes:
        call: what is repeated.
        count: how often.
    """

    call: Call
    count: int = 1

    def __call__(self) -> None:
        """Run the call as often as a sample needs."""
        for _ in range(self.count):
            self.call()


def sample(call: Call, device: str) -> Sample:
    """Find out how many calls make a sample; the call has run before, so that nothing is compiled or loaded here."""
    found = Sample(call)
    while (seconds := stopwatch(found, device)) < SAMPLE_SECONDS:
        # Tenfold at most: the first calls are the slowest, and a sample much longer than needed costs rounds.
        found = Sample(call, found.count * max(2, min(10, round(SAMPLE_SECONDS / max(seconds, 1e-9)))))
    return found


def timed(samples: Sequence[Sample], allowance: float, device: str) -> list[list[float]]:
    """Return the seconds of one call, by sample and round.

    Args:
        samples: each runs once a round, in changing order.
        allowance: seconds after which no further round begins.
        device: where the samples compute.
    """
    seconds = play(samples, allowance, device)
    return [[each / one.count for each in own] for one, own in zip(samples, seconds, strict=True)]
