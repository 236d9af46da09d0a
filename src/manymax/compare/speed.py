"""Speed of the whole model with each candidate: training and generation, interleaved in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from manymax.compare.jobs import Order
from manymax.compare.outcome import of_error
from manymax.compare.rounds import noise_floor, play, speed_ratio
from manymax.compare.subject import Subject
from manymax.compare.train import Trainer
from manymax.models.layers import Cache

GENERATED_ROWS = 8
CONTROL = 0.25  # share of the time for the baseline against itself


@dataclass
class Contestant:
    """A model that is timed.

    Attributes:
        trainer: does a training step.
        tokens: targets of a step.
        prompt: what generation starts from.
        generated: tokens that a generation adds; 0 where the model has no cache to generate with.
        states: (tokens, bytes that a sequence's states take after them) at two lengths; empty without a cache.
    """

    trainer: Trainer
    tokens: int
    prompt: Any = None
    generated: int = 0
    states: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, subject: Subject, label: str) -> Contestant:
        """Build a candidate's model and run everything once, untimed."""
        model = subject.model(label, 0)
        inputs, targets = subject.batch(0, 0)
        contestant = cls(Trainer(subject, model, 1000, 0), targets.numel())
        contestant.train()
        if subject.task.kind == "language" and model.supports_cache:
            half = max(1, inputs.shape[1] // 2)
            contestant.prompt, contestant.generated = inputs[:GENERATED_ROWS, :half], half
            try:
                contestant.generate()
                contestant.states = contestant.measure_states(inputs[:1])
            except (ValueError, NotImplementedError):  # a mechanism may find out only now that it has no state
                contestant.generated = 0
        return contestant

    @torch.no_grad()
    def measure_states(self, tokens: Tensor) -> tuple[tuple[int, int], ...]:
        """Return how large the states of one sequence are after half of its tokens, and after all."""
        found = []
        for count in (tokens.shape[1] // 2, tokens.shape[1]):
            cache = Cache()
            with self.trainer.subject.precision():
                self.trainer.model.features(tokens[:, :count], cache)
            if cache.nbytes is not None:
                found.append((count, cache.nbytes))
        return tuple(found)

    def train(self) -> None:
        """Do a training step, always on the same batch."""
        self.trainer.step(0)

    def generate(self) -> None:
        """Continue the prompt, always with the likeliest token."""
        with self.trainer.subject.precision():
            self.trainer.model.generate(self.prompt, self.generated, temperature=0.0, use_cache=True)


def perform(order: Order, subject: Subject, tell: Callable[[float], None]) -> dict[str, Any]:
    """Time all candidates; one that fails here says so and is left out."""
    contestants: dict[str, Contestant] = {}
    results: dict[str, dict[str, Any]] = {}
    for number, label in enumerate(order.candidates):
        try:
            contestants[label] = Contestant.of(subject, label)
            results[label] = {
                "status": "ok",
                "message": "",
                "backend": subject.backend(contestants[label].trainer.model),
                "state_bytes": [list(pair) for pair in contestants[label].states],
            }
        except Exception as error:  # noqa: BLE001  (whatever a candidate does, the others are timed)
            status, message = of_error(error)
            results[label] = {"status": status, "message": message, "backend": None, "state_bytes": []}
        tell(0.1 * (number + 1) / len(order.candidates))
    baseline = order.candidates[0]
    twin = Contestant.of(subject, baseline)
    floors, rounds = [], {}
    for share, kind in ((0.4, "train"), (0.8, "generate")):
        works = {label: getattr(one, kind) for label, one in contestants.items() if kind == "train" or one.generated}
        if baseline not in works:
            continue
        again = getattr(twin, kind)
        seconds, floor = _contest(works, again, order.allowance / 2, subject.plan.device)
        floors.append(floor)
        rounds[kind] = len(seconds[baseline])
        for label, taken in seconds.items():
            one = contestants[label]
            tokens = one.tokens if kind == "train" else len(one.prompt) * one.generated
            results[label][f"{kind}_tokens_per_second"] = tokens / median(taken)
            results[label][f"{kind}_ratio"] = speed_ratio(seconds[baseline], taken)
        tell(share + 0.2)
    missing = dict.fromkeys(
        f"{kind}_{what}" for kind in ("train", "generate") for what in ("tokens_per_second", "ratio")
    )
    return {
        "metrics": {
            "noise_floor": max(floors),
            "rounds": rounds["train"],
            "candidates": {label: missing | result for label, result in results.items()},
        }
    }


def _contest(
    works: dict[str, Callable[[], None]], twin: Callable[[], None], allowance: float, device: str
) -> tuple[dict[str, list[float]], float]:
    """Time the baseline against its twin, then everyone; return seconds by label and the noise floor."""
    first = next(iter(works))
    one, other = play([works[first], twin], CONTROL * allowance, device)
    seconds = play(list(works.values()), (1 - CONTROL) * allowance, device)
    return dict(zip(works, seconds, strict=True)), noise_floor(one, other)
