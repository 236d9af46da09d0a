"""Every registered system, room by room, in one shape: what `list`, `show` and the docs pages read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from manymax.describe.docstring import Docstring, describe


@dataclass(frozen=True)
class Option:
    """What a system leaves to choose; without a default it must be given."""

    name: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.name} = {self.default}" if self.default else self.name


@dataclass(frozen=True)
class System:
    """One registered system.

    Attributes:
        room: "maps", "heads", "tasks" or "claims".
        name: what users ask for it by.
        kind: the family within its room; "" where the room has none.
        text: what its docstring says.
        usage: how one asks for it.
        module: where it is written.
        options: what is its own to choose, beside what all systems of the room take.
        sums_to_one: whether the weights of a row sum to 1; None where there are no weights.
        companions: names of public functions beside it.
        target: the function or class itself; None for a claim.
    """

    room: str
    name: str
    kind: str
    text: Docstring
    usage: str
    module: str
    options: tuple[Option, ...] = ()
    sums_to_one: bool | None = None
    companions: tuple[str, ...] = ()
    target: Callable[..., Any] | None = None

    @property
    def facts(self) -> list[str]:
        """Return what can be said in a word or two."""
        rows = {None: "", True: "rows sum to 1", False: "rows need not sum to 1"}[self.sums_to_one]
        return [fact for fact in (self.room.removesuffix("s"), self.kind, rows) if fact]


def signature(target: Callable[..., Any]) -> str:
    """Return a signature without annotations, which the options' meanings give in words."""
    found = inspect.signature(target)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def options(target: Callable[..., Any], common: Collection[str] = ()) -> tuple[Option, ...]:
    """Return the parameters of a function or class with what its docstring says of them.

    Args:
        target: the function or class.
        common: parameters to leave out.
    """
    meanings = {name: entry.text for entry in describe(target).arguments for name in entry.name.split(", ")}
    found = []
    for name, one in inspect.signature(target).parameters.items():
        if name not in common:
            full = str(one.replace(annotation=inspect.Parameter.empty, default=inspect.Parameter.empty))
            default = "" if one.default is inspect.Parameter.empty else repr(one.default)
            found.append(Option(full, default, meanings.get(full, "")))
    return tuple(found)


def public() -> dict[str, Any]:
    """Return the public names with what they stand for; a module is a name for each name that it offers."""
    package = import_module("manymax")
    found: dict[str, Any] = {}
    for name in package.__all__:
        target = getattr(package, name)
        inside = {f"{name}.{one}": getattr(target, one) for one in target.__all__} if inspect.ismodule(target) else {}
        found |= inside or {name: target}
    return found


def _maps() -> Iterator[System]:
    registry = import_module("manymax.maps.registry")
    create_map = import_module("manymax.maps.module").create_map
    for name, entry in sorted(registry.MAPS.items()):
        yield System(
            room="maps",
            name=name,
            kind=entry.rule.kind,
            text=describe(entry.function),
            usage=f"mm.{name}{signature(entry.function)}",
            module=entry.function.__module__,
            options=options(entry.function, {"x", "dim", "mask", "out"}),
            sums_to_one=create_map(name).sums_to_one,
            companions=tuple(companion.__name__ for companion in entry.companions),
            target=entry.function,
        )


def _attentions() -> Iterator[System]:
    """Yield the mechanisms of attention: every map is one, and those with a rule of their own."""
    yield from sorted([*_dense(), *_mechanisms()], key=lambda system: system.name)


def _dense() -> Iterator[System]:
    """Yield a system for each map, which is a mechanism by itself: dense attention with that map."""
    module = import_module("manymax.attention.dense.module").DenseAttention
    formula = describe(import_module("manymax.attention.dense.api").attention)
    body = f"$${formula.equations[0]}$$\n\n`mm.attention` says what each symbol is."
    names = import_module("manymax.attention.registry").ATTENTIONS
    for one in _maps():
        if one.name in names:
            summary = f"Attend with weights from `{one.name}`: {one.text.summary[0].lower()}{one.text.summary[1:]}"
            yield System(
                room="attentions",
                name=one.name,
                kind="dense",
                text=Docstring(summary, body, formula.equations, source=one.text.source),
                usage=f'mm.create_attention("{one.name}", head_dim=..., num_heads=...)',
                module=module.__module__,
                options=options(module, {"map", "head_dim", "num_heads"}),
            )


def _mechanisms() -> Iterator[System]:
    """Yield the mechanisms with a rule of their own; a name may stand for a class with an option chosen."""
    registry = import_module("manymax.attention.registry")
    for name in sorted(registry.MECHANISMS):
        mechanism = registry.mechanism_class(name)
        yield System(
            room="attentions",
            name=name,
            kind=mechanism.family,
            text=describe(mechanism),
            usage=f'mm.create_attention("{name}", head_dim=..., num_heads=...)',
            module=mechanism.__module__,
            options=options(mechanism, {"head_dim", "num_heads"}),
            target=mechanism,
        )


def _heads() -> Iterator[System]:
    registry = import_module("manymax.heads.registry")
    for name, head in sorted(registry.HEADS.items()):
        yield System(
            room="heads",
            name=name,
            kind="",
            text=describe(head),
            usage=f'mm.create_head("{name}", in_features=..., num_classes=...)',
            module=head.__module__,
            options=_head_options(head),
            target=head,
        )


def _head_options(head: type) -> tuple[Option, ...]:
    """Return a head's own options, then those that all heads share, with what `Head` says of them."""
    common = options(import_module("manymax.heads.head").Head, {"in_features", "num_classes"})
    own = [one for one in options(head, {"in_features", "num_classes", "common"}) if one.meaning]
    return *own, *(one for one in common if one.name not in {mine.name for mine in own})


def _tasks() -> Iterator[System]:
    registry = import_module("manymax.data.registry")
    for name, task in sorted(registry.TASKS.items()):
        yield System(
            room="tasks",
            name=name,
            kind=task.kind,
            text=describe(task),
            usage=f"manymax compare --task {name}",
            module=task.__module__,
            options=options(task),
            target=task,
        )


def _claims() -> Iterator[System]:
    registry = import_module("manymax.claims.registry")
    for name in registry.list_claims():
        claim = registry.load_claim(name)
        checks = "\n".join(f"- {check.statement}: `{check}`" for check in claim.checks)
        said = f"{claim.statement}\n\nSetting: {claim.setting}\n\nDifferences to the paper: {claim.differences}"
        yield System(
            room="claims",
            name=name,
            kind="",
            text=Docstring(
                summary=f"{claim.source.title} ({claim.source.authors}, {claim.source.year}).",
                body=f"{said}\n\nIt holds if\n\n{checks}",
                source=f"{claim.source}.",
            ),
            usage=f"manymax claims run {name}",
            module=f"manymax.claims.{name.replace('-', '_')}",
        )


ROOMS: dict[str, Callable[[], Iterator[System]]] = {
    "maps": _maps,
    "attentions": _attentions,
    "heads": _heads,
    "tasks": _tasks,
    "claims": _claims,
}


def systems(room: str) -> list[System]:
    """Return the systems of a room, sorted by name.

    Args:
        room: one of `ROOMS`.
    """
    return list(ROOMS[room]())


def every_system() -> list[System]:
    """Return the systems of all rooms."""
    return [system for room in ROOMS for system in systems(room)]
