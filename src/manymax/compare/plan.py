"""The plan of a comparison: what is compared, where, on what, for how long. Reading one needs no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manymax.compare import candidate
from manymax.compare.candidate import Candidate
from manymax.compare.values import one_of, positive, whole

DEFAULTS = {
    "attention": ("softmax", "sigmoid", "relu", "softplus", "stablemax", "softmax1", "entmax15"),
    "output": ("softmax", "stablemax", "comp-sum-losses:tau=1.5", "focal", "cnn-svm", "cosface", "z-loss-spherical"),
}
SITES = tuple(DEFAULTS)
ALIASES = {"head": "output"}  # the library's own word for what acts there
READERS = ("text", "words")  # tasks that read a user's files
DTYPES = ("float32", "float64", "bfloat16")
LIMITS = ("timeout", "memory")  # may be raised when a run goes on: what has finished stayed below them


@dataclass(frozen=True)
class Plan:
    """A comparison, as plan files spell it; every field is a key of the file.

    Attributes:
        site: where in the model the candidates act: "attention" or "output", which may be spelt "head".
        candidates: what is compared, the baseline first.
        baseline: the label of the candidate that the others are measured against.
        task: a name of `manymax list tasks`, with options as a candidate has them.
        seeds: each trains every candidate once, from the same initial weights on the same batches; n means 0 to n - 1.
        budget: seconds for training, speed and length together; it sets the number of steps.
        steps: optimiser steps of each training, instead of those that the budget allows.
        text: a file or folder to train on, for the tasks "text" and "words".
        model: sizes of the model that differ from the task's own; `family` is another model that reads the task.
        batch_size: examples in a step; None is the task's own.
        learning_rate: peak of the schedule; None is the task's own.
        device: "cpu", "cuda", ...
        dtype: "float32", "float64", or "bfloat16" by autocast.
        threads: of one training; None shares the cores between the trainings that run at once.
        lengths: numbers of tokens at which attention alone is measured.
        timeout: seconds after which a job is stopped; None is four times what calibration expects, 60 at least.
        memory: bytes that a job may use beyond what it starts with; None is no limit.
        source: the Python file that the plan came from; each job runs it, so that what it registers exists there.
    """

    site: str = "attention"
    candidates: tuple[Candidate, ...] = tuple(map(Candidate, DEFAULTS["attention"]))
    baseline: str = "softmax"
    task: str = "text"
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: float = 180.0
    steps: int | None = None
    text: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    learning_rate: float | None = None
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    timeout: float | None = None
    memory: int | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without torch."""
        if self.site == "router":
            raise ValueError("site: 'router' is planned but not built yet; attention and output are")
        one_of("site", self.site, SITES)
        one_of("dtype", self.dtype, DTYPES)
        for name in ("steps", "threads", "memory", "batch_size"):
            whole(name, getattr(self, name), 1)
        positive("learning_rate", self.learning_rate)
        for name, low in (("seeds", 0), ("lengths", 1)):
            for value in getattr(self, name):
                whole(name, value, low)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected at least one, each once, got {list(self.seeds)}")
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths: expected growing numbers, got {list(self.lengths)}")
        if self.text is not None and candidate.parse(self.task).system not in READERS:
            raise ValueError(f"text: only the tasks {' and '.join(READERS)} read it, got task {self.task!r}")
        if twice := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            raise ValueError(f"candidates: expected each once, got {twice[0]!r} more than once")

    @property
    def labels(self) -> list[str]:
        """Return the candidates' labels, the baseline first."""
        return [one.label for one in self.candidates]

    def candidate(self, label: str) -> Candidate:
        """Return the candidate of a label."""
        return next(one for one in self.candidates if one.label == label)

    def hash(self) -> str:
        """Return a short fingerprint of everything that results depend on, the Python file's text included."""
        data = {key: value for key, value in dataclasses.asdict(self).items() if key not in LIMITS}
        data["source"] = Path(self.source).read_text(encoding="utf-8") if self.source else None
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def as_mapping(self) -> dict[str, Any]:
        """Return what `reading.from_mapping` reads back, for JSON."""
        data = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        data["candidates"] = [{"name": one.system, **dict(one.options)} for one in self.candidates]
        return data | {"seeds": list(self.seeds), "lengths": list(self.lengths)}
