from dataclasses import dataclass, field

import pytest
import torch

from manymax.bench import contender
from manymax.bench.contender import Contender, run_case
from manymax.bench.rounds import Sample


@dataclass
class Doubling:
    """The problem of doubling a tensor."""

    inputs: tuple = (torch.arange(4.0),)
    work: float = 100.0
    device: str = "cpu"
    backward: bool = False
    asked: list = field(default_factory=list)

    def error(self, label, out):
        self.asked.append(label)
        return float((out - 2 * self.inputs[0]).abs().max() / 6)


def twice(x):
    return 2 * x


def wrong(x):
    return 2 * x + 1


def fails(error):
    def function(x):
        raise error

    return function


@pytest.fixture
def seconds(monkeypatch):
    """Give the first contender 1, 2 and 4 seconds, the others 4, 4 and 4; return the controls' allowances."""
    controls = []

    def timed(samples, allowance, device):
        if len(samples) == 2 and samples[0] is samples[1]:
            controls.append(allowance)
            return [[1.0, 1.0, 1.0], [0.95, 1.0, 1.02]]
        return [[1.0, 2.0, 4.0], *([4.0, 4.0, 4.0] for _ in samples[1:])]

    monkeypatch.setattr(contender, "timed", timed)
    monkeypatch.setattr(contender, "sample", lambda call, device: Sample(call))
    return controls


def test_ratios_are_paired_and_the_control_comes_from_the_baseline(seconds):
    case = run_case(Doubling(), [Contender("one", "a", twice), Contender("two", "a", twice)], limit=50.0, seconds=10.0)
    assert [row.status for row in case.rows] == ["ok", "ok"]
    assert seconds == [2.0]
    assert case.noise_floor == pytest.approx(1 / 0.95 - 1)
    assert case.rounds == 3
    assert case.rows[0].seconds == 2.0
    assert case.rows[1].seconds == 4.0
    assert case.rows[0].speed == (1.0, 1.0, 1.0)
    assert case.rows[1].speed == (0.25, 0.5, 1.0)
    assert case.rows[1].share == 100.0 / 4.0 / 50.0


@pytest.mark.parametrize(
    ("function", "status", "message"),
    [
        (wrong, "differs", "error 1.7e-01"),
        (fails(NotImplementedError("no backward\nmore")), "unsupported", "no backward"),
        (fails(ValueError("map: no")), "unsupported", "map: no"),
        (fails(MemoryError("full")), "out of memory", "full"),
        (fails(RuntimeError("DefaultCPUAllocator: not enough memory: you tried")), "out of memory", "DefaultCPU"),
        (fails(KeyError("odd")), "crashed", "KeyError"),
    ],
)
def test_a_failing_contender_is_a_row_and_the_others_are_timed(seconds, function, status, message):
    contenders = [Contender("one", "a", twice), Contender("bad", "b", function), Contender("two", "c", twice)]
    problem = Doubling()
    rows = run_case(problem, contenders, limit=1.0, seconds=1.0).rows
    assert [row.status for row in rows] == ["ok", status, "ok"]
    assert message in rows[1].message
    assert "\n" not in rows[1].message
    assert rows[1].seconds is rows[1].speed is rows[1].share is None
    assert rows[2].seconds is not None
    assert {"a", "c"} <= set(problem.asked)


def test_nan_differs(seconds):
    contenders = [Contender("one", "a", twice), Contender("nan", "a", lambda x: x * torch.nan)]
    assert run_case(Doubling(), contenders, 1.0, 1.0).rows[1].status == "differs"


def test_nothing_is_timed_without_a_baseline(seconds):
    case = run_case(Doubling(), [Contender("one", "a", wrong), Contender("two", "a", twice)], 1.0, 1.0)
    assert [row.status for row in case.rows] == ["differs", "not timed"]
    assert case.noise_floor is None
    assert case.rounds == 0
    assert seconds == []


def test_backward_includes_the_gradient_of_every_input(seconds):
    seen = []

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            seen.append(grad)
            return 2 * grad

    run_case(Doubling(backward=True), [Contender("one", "a", Product.apply)], 1.0, 1.0)
    assert len(seen) == 1
    seen.clear()
    run_case(Doubling(), [Contender("one", "a", Product.apply)], 1.0, 1.0)
    assert seen == []


def test_forward_alone_builds_no_graph(seconds):
    graphs = []

    def function(x):
        graphs.append(torch.is_grad_enabled())
        return 2 * x

    run_case(Doubling(), [Contender("one", "a", function)], 1.0, 1.0)
    assert set(graphs) == {False}
