"""Which backend of `mm.attention` serves a piece of work: stands in every result, since it explains the speed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from torch import Tensor

from manymax.attention.dense.call import Call
from manymax.attention.dense.dispatch import BACKENDS

Run = Callable[[Call], tuple[Tensor, ...]]


class Served(list[str]):
    """The backends that served, each once, in the order of their first call."""

    def __str__(self) -> str:
        return "+".join(self)


@contextlib.contextmanager
def observe() -> Iterator[Served]:
    """Note which backends serve the calls inside the `with` block; none for a mechanism that is no dense attention."""
    served, originals = Served(), dict(BACKENDS)
    for name, entry in originals.items():
        BACKENDS[name] = dataclasses.replace(entry, run=_noting(name, entry.run, served))
    try:
        yield served
    finally:
        BACKENDS.update(originals)


def _noting(name: str, run: Run, served: Served) -> Run:
    def noting(call: Call) -> tuple[Tensor, ...]:
        if name not in served:
            served.append(name)
        return run(call)

    return noting
