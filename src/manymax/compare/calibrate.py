"""A moment's training of one candidate: does it run at all, and how long does a step take?"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from manymax.compare.jobs import Order
from manymax.compare.subject import Excerpt, Subject
from manymax.compare.train import EVALUATIONS, Trainer

FEWEST = 3  # timed steps, after one that is not
BATCHES = 5  # of the validation set


def perform(order: Order, subject: Subject, tell: Callable[[float], None]) -> dict[str, Any]:
    """Measure the seconds of a step, and of all else that a training does."""
    del tell
    assert order.candidate is not None
    start = time.perf_counter()
    model = subject.model(order.candidate, 0)
    trainer = Trainer(subject, model, 1000, 0)
    trainer.step(0)
    first = time.perf_counter() - start
    seconds: list[float] = []
    while len(seconds) < FEWEST or time.perf_counter() < start + order.allowance:
        begin = time.perf_counter()
        trainer.step(len(seconds) + 1)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    subject.probe(model)
    subject.backend(model)
    probing = time.perf_counter() - begin
    fixed = 2 * first + EVALUATIONS * _evaluation(subject, model) + probing
    return {"metrics": {"step": median(seconds), "fixed": fixed, "facts": subject.facts(model)}}


def _evaluation(subject: Subject, model: Any) -> float:
    """Return the seconds of an evaluation, from those of its first batches."""
    whole, size = subject.excerpt, subject.batch_size
    seconds = []
    for start in range(0, min(BATCHES * size, len(whole.inputs)), size):
        part = Excerpt(subject.task, whole.inputs[start : start + size], whole.targets[start : start + size])
        begin = time.perf_counter()
        subject.evaluate(model, part)
        seconds.append((time.perf_counter() - begin) / len(part.inputs))
    return median(seconds) * len(whole.inputs)
