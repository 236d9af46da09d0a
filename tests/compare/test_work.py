import pytest
import torch

from manymax.compare import work
from manymax.compare.jobs import Order
from manymax.compare.outcome import of_error
from manymax.compare.reading import from_mapping
from manymax.compare.results import STATUSES
from manymax.compare.state import MISTAKE


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def order(kind="check", candidate="relu", **keys):
    plan = from_mapping({"candidates": ["relu"], "task": "recall", "model": {"depth": 1}, **keys})
    return Order(plan.as_mapping(), kind, candidate, 0)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (MemoryError("much"), "out of memory", "much"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory", "DefaultCPUAllocator"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory", "CUDA"),
        (ValueError("no\nsecond line"), "unsupported", "no"),
        (NotImplementedError(), "unsupported", "NotImplementedError"),
        (RuntimeError("mat1 and mat2"), "crashed", "RuntimeError: mat1 and mat2"),
        (KeyError("x"), "crashed", "KeyError: 'x'"),
    ],
)
def test_exceptions_have_a_status(error, status, message):
    found = of_error(error)
    assert found[0] == status
    assert found[0] in STATUSES
    assert found[1].startswith(message)
    assert "second line" not in found[1]


def test_a_crash_says_where():
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert of_error(caught.value)[1].startswith("ZeroDivisionError: division by zero (test_work.py, line ")


@pytest.mark.parametrize(
    ("keys", "candidate", "message"),
    [
        ({"candidates": ["rely"]}, "rely", "candidates: expected one of .* got 'rely'; did you mean 'relu'"),
        ({"candidates": ["relu:powe=2"]}, "relu:powe=2", "has no option 'powe'"),
        ({"candidates": ["relu:temperature=-1"]}, "relu:temperature=-1", "candidates: temperature: expected"),
        ({"task": "recal"}, "relu", "task: expected one of .* did you mean 'recall'"),
        ({"task": "recall:pears=3"}, "relu", "recall has no option 'pears'.*did you mean 'pairs'"),
        ({"task": "recall:pairs=99"}, "relu", "task: length: expected at least 396"),
        ({"model": {"dept": 3}}, "relu", "gpt has no option 'dept'.*did you mean 'depth'"),
        ({"model": {"width": 65, "num_heads": 2}}, "relu", "num_heads: expected a divisor of the width 65, got 2"),
        ({"task": "text", "text": "/no/such/file"}, "relu", "text: no file or folder /no/such/file"),
        ({"site": "output", "candidates": ["stablemx"]}, "stablemx", "candidates: .*did you mean 'stablemax'"),
    ],
)
@pytest.mark.parametrize("kind", ["check", "calibrate"])
def test_mistakes_in_a_plan_are_told_from_failures(keys, candidate, message, kind):
    line = work.perform(order(kind, candidate, **keys), lambda _: None)
    assert line["status"] == MISTAKE
    with pytest.raises(ValueError, match=message):
        raise ValueError(line["message"])


def test_a_candidate_that_cannot_do_the_task_is_no_mistake():
    line = work.perform(order(candidate="sinkhorn", candidates=["sinkhorn"]), lambda _: None)
    assert line["status"] == "unsupported"


def test_checks_say_what_was_built():
    line = work.perform(order("check", candidates=["relu"]), lambda _: None)
    assert line["status"] == "ok"
    assert line["metrics"]["facts"]["model"]["width"] == 32
    assert line["job"] == "check/relu/0"


def test_calibrations_measure_a_step_and_the_rest():
    line = work.perform(order("calibrate"), lambda _: None)
    assert line["status"] == "ok"
    assert 0 < line["metrics"]["step"] < 100
    assert 0 < line["metrics"]["fixed"] < 100


def test_the_environment_is_complete():
    environment = work.machine(Order(from_mapping({"dtype": "float64"}).as_mapping(), "train", threads=1))
    assert list(environment) == ["commit", "manymax", "torch", "python", "processor", "threads", "dtype", "platform"]
    assert environment["threads"] == 1
    assert environment["dtype"] == "float64"
    assert all(environment[key] for key in environment if key != "commit")
