"""Which backend serves a call. The rules are fixed, so that a call's shape and options alone decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from manymax._names import closest
from manymax.attention.dense import native, reference, sdpa, tiled
from manymax.attention.dense.call import Call

# Measured on one core of a CPU, forwards and backwards; numbers are the time of tiled over that of the alternative.
FEW = 2**18  # scores up to which the reference is no slower: 1.3 at 2^15, 1.0 at 2^18, 0.6 at 2^21
STORED = 2**22  # scores up to which storing is faster still: 1.3 with dropout, 1.8 with a learnt bias, 1.4 if sorted
WINDOW = 2**18  # pairs up to which torch is faster, with the window as a mask: 1.2 at 2^16, 0.5 at 2^20


@dataclass(frozen=True)
class Backend:
    """A way to serve calls.

    Attributes:
        refusal: returns why it cannot serve a call, or None.
        run: serves the call.
        trait: what it is, for `explain`.
    """

    refusal: Callable[[Call], str | None]
    run: Callable[[Call], tuple[Tensor, ...]]
    trait: str


@dataclass(frozen=True)
class Choice:
    """Which backend serves a call.

    Attributes:
        asked: the backend that was asked for.
        name: the backend that serves; None if the one that was asked for cannot.
        reasons: for every backend, why it serves, that it could, or why it cannot.
    """

    asked: str
    name: str | None
    reasons: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{name} {reason}" for name, reason in self.reasons.items() if name != self.name]
        first = f"{self.name} {self.reasons[self.name]}" if self.name else self.error()
        return "\n".join([first, *lines])

    def error(self) -> str:
        """Return the message of the error that `run` raises if none serves."""
        return f"backend {self.asked!r} cannot serve this call: {self.reasons[self.asked].removeprefix('cannot: ')}"


def _not_built(call: Call) -> tuple[Tensor, ...]:
    del call
    raise NotImplementedError


BACKENDS = {
    "sdpa": Backend(sdpa.refusal, sdpa.run, "torch computes exactly this"),
    "tiled": Backend(tiled.refusal, tiled.run, "tiles never store the scores"),
    "reference": Backend(reference.refusal, reference.run, "the formula, storing all weights"),
    "cpu": Backend(native.refusal, native.run, "native kernels for CPUs"),
    "triton": Backend(lambda _: "it is not built yet", _not_built, ""),
}


def _suits_sdpa(call: Call) -> bool:
    """Return whether sdpa, which can serve, should."""
    batch, heads, queries, keys = call.inputs.shape
    if not sdpa.is_fused(call):
        return batch * heads * queries * keys <= STORED
    if sdpa.has_extra_key(call) and queries < 16:
        return False  # it copies the keys, which then costs more than attending to them: 0.7 with one query
    if call.options.band.low is not None:
        return queries * keys <= WINDOW
    return queries * keys <= STORED or not sdpa.makes_mask(call)


def _can(name: str, call: Call) -> bool:
    return BACKENDS[name].refusal(call) is None


def _automatic(call: Call) -> tuple[str, str]:
    """Return the backend for "auto", and why. No more backends are asked than it takes: each costs microseconds."""
    if _can("cpu", call):
        return "cpu", "native kernels are the fastest way"
    if _can("sdpa", call) and _suits_sdpa(call):
        return "sdpa", "torch computes exactly this"
    if not _can("tiled", call):
        return "reference", "tiles cannot"
    batch, heads, queries, keys = call.inputs.shape
    scores = batch * heads * queries * keys
    if scores <= (STORED if call.options.rule.kind == "threshold" else FEW):
        return "reference", f"{scores} scores are few enough to store"
    return "tiled", f"{scores} scores are too many to store"


def _check(backend: str) -> None:
    """Refuse a name that no backend has."""
    if backend != "auto" and backend not in BACKENDS:
        names = ["auto", *BACKENDS]
        raise ValueError(f"backend: expected one of {', '.join(names)}, got {backend!r}{closest(backend, names)}")


def choose(call: Call, backend: str = "auto") -> Choice:
    """Return which backend serves a call, without running it."""
    _check(backend)
    refusals = {name: entry.refusal(call) for name, entry in BACKENDS.items()}
    name: str | None
    if backend == "auto":
        name, why = _automatic(call)
    else:
        name, why = None if refusals[backend] else backend, "it was asked for"
    reasons = {}
    for other, refusal in refusals.items():
        could = f"could: {BACKENDS[other].trait}"
        reasons[other] = f"cannot: {refusal}" if refusal else f"serves this call: {why}" if other == name else could
    return Choice(backend, name, reasons)


def run(call: Call, backend: str = "auto") -> tuple[Tensor, ...]:
    """Serve a call, or raise ValueError if the backend that was asked for cannot."""
    _check(backend)
    name = _automatic(call)[0] if backend == "auto" else backend
    if backend != "auto" and not _can(name, call):
        raise ValueError(choose(call, backend).error())
    return BACKENDS[name].run(call)
