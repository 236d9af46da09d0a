"""The decode step of a linear state, beside a reading of it, the step in plain PyTorch, and copies of many states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from benchmarks.limits import Limits
from benchmarks.measure import Measurement, of_case
from manymax.bench.contender import Contender, run_case
from manymax.kernels import linear

READING = "reading"  # the label of a contender that computes no recurrence
HEADS, DIM = 8, 64
TOKENS = 512  # of decoding with one state; copying it before the first takes 0.4 % of their time
STATES = 64  # of decoding in turn: 134 MB with a batch of 16


@dataclass(frozen=True)
class StepProblem:
    """Tokens of decoding, each of which reads and writes a state.

    Attributes:
        batch: B.
        states: one, which the tokens carry along, or many in turn, so that they come from memory.
    """

    batch: int
    states: int
    device: str = "cpu"
    backward: bool = False

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return a query, key and value, and the states."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(3, self.batch, HEADS, 1, DIM, generator=generator).unbind()
        return *tokens, torch.randn(self.states, self.batch, HEADS, DIM, DIM, generator=generator)

    @property
    def work(self) -> float:
        """Return the bytes of states that are read; as many are written."""
        return float(self.inputs[3][0].nbytes * (TOKENS if self.states == 1 else self.states))

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest relative error of the last output; 0 for what computes none."""
        if label == READING:
            return 0.0
        query, key, value, states = (x.double() for x in self.inputs)
        exact = query @ (states[-1] + key.mT @ value * (TOKENS if self.states == 1 else 1))
        return float((out - exact).abs().max() / exact.abs().max())


def _carry(
    call: Callable[..., tuple[Tensor, Tensor]], query: Tensor, key: Tensor, value: Tensor, states: Tensor
) -> Tensor:
    """Return the last output of TOKENS tokens with one state, or of one token with each of many."""
    if states.shape[0] > 1:
        return [call(query, key, value, initial_state=state)[0] for state in states][-1]
    state = states[0]
    for _ in range(TOKENS):
        out, state = call(query, key, value, initial_state=state)
    return out


def _plain_step(query: Tensor, key: Tensor, value: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    state = initial_state + key.mT * value
    return query @ state, state


def _copy_states(_query: Tensor, _key: Tensor, _value: Tensor, states: Tensor) -> Tensor:
    return [state.clone() for state in states][-1]


def _steps_in_place(query: Tensor, key: Tensor, value: Tensor, states: Tensor) -> Tensor:
    """Return the last output of TOKENS tokens with one state that moves on where it lies, as in generation."""
    state, out = states[0].clone(), torch.empty_like(query)
    with torch.no_grad():
        for _ in range(TOKENS):
            if not linear.advance(query, key, value, None, None, state, out):
                raise RuntimeError("the step in place does not serve on this machine")
    return out


def _measured(problem: StepProblem, limits: Limits, seconds: float) -> Iterator[Measurement]:
    """Yield the bandwidth that steps reach, as a share of reading from memory, or beside copies of as many states."""
    alone = problem.states == 1
    contenders = [
        Contender("torch", "plain", partial(_carry, _plain_step)) if alone else Contender("copy", READING, _copy_states)
    ]
    contenders.append(Contender("manymax", "plain", partial(_carry, linear.attend), "cpu"))
    if alone:
        contenders.append(Contender("manymax", "plain, in place", _steps_in_place, "cpu"))
    case = run_case(problem, contenders, limits.read, seconds)
    name = f"batch {problem.batch}, {HEADS} heads, D {DIM}, float32, {problem.states} state{'' if alone else 's'}"
    known = {"bytes": problem.work, "limited_by": "bytes", "limit": limits.read, "backend": "cpu"}
    if not alone:
        yield of_case("linear/step/memory", name, case, case.rows[1], **known)
        return
    yield of_case("linear/step", f"{name}, in place", case, case.rows[2], share=True, **known)
    yield of_case("linear/step/new", f"{name}, in new memory", case, case.rows[1], **known)


def steps(limits: Limits, seconds: float) -> Iterator[Measurement]:
    """Yield the steps of one state at batch 1 to 16, and of many that come from memory."""
    for batch in (1, 4, 16):
        yield from _measured(StepProblem(batch, 1), limits, seconds)
    yield from _measured(StepProblem(16, STATES), limits, seconds)
