"""Which backend of attention serves a piece of work: stands in every result, since it explains the speed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from manymax.attention.dense.dispatch import BACKENDS
from manymax.attention.linear.recurrence import FORMS

Run = Callable[..., Any]


class Served(list[str]):
    """The backends that served, each once, in the order of their first call."""

    def __str__(self) -> str:
        return "+".join(self)


@contextlib.contextmanager
def observe() -> Iterator[Served]:
    """Note what serves the calls inside the `with` block: backends of dense attention, forms of the recurrence."""
    served, backends, forms = Served(), dict(BACKENDS), dict(FORMS)
    for name, entry in backends.items():
        BACKENDS[name] = dataclasses.replace(entry, run=_noting(name, entry.run, served))
    for name, form in forms.items():
        FORMS[name] = _noting(name, form, served)
    try:
        yield served
    finally:
        BACKENDS.update(backends)
        FORMS.update(forms)


def _noting(name: str, run: Run, served: Served) -> Run:
    def noting(*arguments: Any) -> Any:
        if name not in served:
            served.append(name)
        return run(*arguments)

    return noting
