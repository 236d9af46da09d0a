"""What a claim is made of. Nothing here imports torch, so that claims can be listed and shown at once."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from manymax import __version__

Comparison: TypeAlias = Literal["<", "<=", ">", ">="]
Numbers: TypeAlias = Mapping[str, Any]
Progress: TypeAlias = Callable[[float, str], None]  # share of the run that is done, what is being done


class Untestable(NamedTuple):
    """In the place of a metric: why it cannot be measured here."""

    reason: str


Metrics: TypeAlias = dict[str, float | Untestable]
Experiment: TypeAlias = Callable[[int, Numbers, Progress], Metrics]


@dataclass(frozen=True)
class Source:
    """Where a claim was made."""

    authors: str
    year: int
    title: str
    arxiv: str

    def __str__(self) -> str:
        return f"{self.authors}, {self.year}, {self.title}, arXiv:{self.arxiv}"


@dataclass(frozen=True)
class Check:
    """One measured number against a threshold that was fixed beforehand.

    Attributes:
        metric: its name in what the experiment returns.
        comparison: how the number has to compare with the threshold.
        threshold: taken from the paper or the catalogue, and never adjusted to what was measured.
        statement: what the check says in words.
        over: "mean" asks it of the mean over seeds, with its interval; "every" of each seed, for what is not chance.
        given: a check that must hold for this one to say anything.
    """

    metric: str
    comparison: Comparison
    threshold: float
    statement: str
    over: Literal["mean", "every"] = "mean"
    given: Check | None = None

    def passes(self, value: float) -> bool:
        """Return whether a number compares with the threshold as asked; NaN never does."""
        return {
            "<": value < self.threshold,
            "<=": value <= self.threshold,
            ">": value > self.threshold,
            ">=": value >= self.threshold,
        }[self.comparison]

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.threshold:g}"


@dataclass(frozen=True)
class Claim:
    """A statement of a paper with an experiment that a laptop can run in minutes.

    Attributes:
        name: under which users ask for it.
        source: the paper.
        statement: what the paper says, in words.
        setting: what the experiment does here.
        differences: how that is smaller or other than what the paper did.
        checks: what has to be measured for the statement to hold.
        numbers: the experiment's sizes; part of what makes a finished run count on a rerun.
        tiny: numbers that replace those for a test that takes seconds and says nothing.
        seeds: each is one run.
        minutes: what all seeds took together on two cores.
        also: further metrics and what they are, reported beside the checks.
    """

    name: str
    source: Source
    statement: str
    setting: str
    differences: str
    checks: tuple[Check, ...]
    numbers: Numbers
    tiny: Numbers
    seeds: tuple[int, ...]
    minutes: float
    also: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a tiny setting of numbers that the experiment does not have."""
        unknown = sorted(set(self.tiny) - set(self.numbers))
        if unknown:
            raise ValueError(f"tiny: expected some of {', '.join(self.numbers)}, got {', '.join(unknown)}")

    @property
    def module(self) -> str:
        """Return the module of the experiment."""
        return f"manymax.claims.experiments.{self.name.replace('-', '_')}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics, those of the checks first."""
        checked = [check.metric for one in self.checks for check in (one, one.given) if check is not None]
        return tuple(dict.fromkeys([*checked, *self.also]))

    def experiment(self) -> Experiment:
        """Import the experiment, and torch with it."""
        run: Experiment = import_module(self.module).run
        return run

    def fingerprint(self) -> str:
        """Return a short hash of what a run depends on: its numbers, the experiment's code, manymax's version.

        The library's own code is not part of it beyond the version: each result records the commit, and `--fresh`
        measures again.
        """
        digest = hashlib.sha256(json.dumps([__version__, dict(self.numbers)], sort_keys=True).encode())
        for path in _sources(self.module):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


def _sources(module: str) -> list[Path]:
    """Return the files of a module and of all modules of this room that it imports, without importing any."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = find_spec(name)
        if name in found or spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        tree = ast.parse(found[name].read_text(encoding="utf-8"))
        imported = (node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module)
        waiting += [other for other in imported if other.startswith("manymax.claims.experiments.")]
    return [found[name] for name in sorted(found)]
