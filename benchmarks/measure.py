"""One measured case of a goal, from the rows of `manymax.bench`."""

from __future__ import annotations

from dataclasses import dataclass

from manymax.bench.contender import Case, Row

UNITS = {"operations": "GFLOP/s", "bytes": "GB/s"}


def duration(seconds: float) -> str:
    """Return a time with a unit."""
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


@dataclass(frozen=True)
class Measurement:
    """What one case reached.

    Attributes:
        goal: key in `goals.GOALS`.
        case: sizes and options.
        reached: in the goal's unit; None if it failed.
        low: lower end of the 95 % interval.
        high: upper end.
        noise: how far from 1 the peer's ratio to itself reached.
        seconds: of a call.
        peer_seconds: of what it is compared with.
        operations: floating-point operations of the products; 0 where they do not matter.
        bytes: what must be read and written at least.
        limited_by: "operations" or "bytes".
        limit: of them a second on this machine.
        backend: which backend of `mm.attention` served, "" for others.
        message: why it failed.
    """

    goal: str
    case: str
    reached: float | None
    low: float | None = None
    high: float | None = None
    noise: float | None = None
    seconds: float | None = None
    peer_seconds: float | None = None
    operations: float = 0.0
    bytes: float = 0.0
    limited_by: str = "operations"
    limit: float | None = None
    backend: str = ""
    message: str = ""

    @property
    def rate(self) -> float | None:
        """Return work a second."""
        work = self.operations if self.limited_by == "operations" else self.bytes
        return work / self.seconds if self.seconds and work else None

    def explain(self, sentence: str) -> str:
        """Return a sentence with this case's numbers, in parts that are known."""
        known = {
            "case": self.case,
            "full": "?",
            "rate": "an unknown rate",
            "share": "an unknown share",
            "time": "?",
            "peer_time": "?",
        }
        if self.rate:
            known["rate"] = f"{self.rate / 1e9:.0f} {UNITS[self.limited_by]}"
            if self.limit:
                known["share"] = f"{self.rate / self.limit:.0%}"
                known["full"] = f"{(self.reached or 0.0) * self.limit / self.rate:.1f}x"
        if self.seconds and self.peer_seconds:
            known["time"], known["peer_time"] = duration(self.seconds), duration(self.peer_seconds)
        return sentence.format(**known)


def of_case(
    goal: str,
    name: str,
    case: Case,
    row: Row,
    *,
    inverse: bool = False,
    share: bool = False,
    **known: float | str | None,
) -> Measurement:
    """Return the measurement of a row beside its case's baseline.

    Args:
        goal: key in `goals.GOALS`.
        name: the case's name.
        case: as `manymax.bench.contender.run_case` returned it.
        row: one of its rows.
        inverse: whether the goal is about the row's time over the baseline's, not the other way round.
        share: whether the goal is about the row's share of the limit.
        known: further fields of the measurement.
    """
    given = {"backend": row.backend, "noise": case.noise_floor, **known}
    if row.speed is None or row.seconds is None:
        return Measurement(goal, name, None, message=f"{row.status}: {row.message}", **given)  # type: ignore[arg-type]
    low, middle, high = row.speed
    if inverse:
        low, middle, high = 1 / high, 1 / middle, 1 / low
    if share:
        assert row.share is not None
        low, middle, high = None, row.share, None
    given = {"seconds": row.seconds, "peer_seconds": case.rows[0].seconds, **given}
    return Measurement(goal, name, middle, low, high, **given)  # type: ignore[arg-type]
