import dataclasses
import subprocess
import sys

import pytest
import torch

from manymax.data.registry import TASKS, create_task, list_tasks
from manymax.data.task import ACCURACY, IGNORED, Metric, share, stream

NAMES = list_tasks()
SMALL = {
    "digits": {},
    "library": {"validation": 2000},
    "listops": {"validation": 50},
    "modular": {"modulus": 11},
    "recall": {"validation": 50},
    "regular": {"validation": 50},
    "text": {"length": 32},
    "triples": {"validation": 50},
    "words": {"length": 32},
}


@pytest.fixture(params=NAMES)
def task(request):
    return create_task(request.param, **SMALL[request.param])


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_registry_lists_every_task():
    assert sorted(TASKS) == NAMES == sorted(SMALL)
    assert all(TASKS[name].name == name for name in NAMES)


def test_a_batch_depends_on_split_seed_and_step_alone(task):
    first = task.batch("train", 3, 8, seed=5)
    torch.manual_seed(99)
    assert equal(first, task.batch("train", 3, 8, seed=5))
    assert equal(first, create_task(task.name, **SMALL[task.name]).batch("train", 3, 8, seed=5))
    for other in (task.batch("train", 4, 8, seed=5), task.batch("train", 3, 8, seed=6)):
        assert not equal(first, other)
    assert not equal(first, task.batch("validation", 3, 8, seed=5))


def test_a_batch_leaves_torchs_own_generator_alone(task):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    task.batch("train", 0, 4)
    list(task.evaluation(16))
    assert torch.equal(torch.rand(3), expected)


def test_shapes_types_and_ranges(task):
    for inputs, targets in (task.batch("train", 0, 8), next(task.evaluation(8))):
        assert len(inputs) == len(targets) == 8
        assert targets.dtype == torch.int64
        asked = targets[targets != IGNORED]
        assert len(asked)
        assert asked.min() >= 0
        assert asked.max() < task.num_classes
        if task.family == "gpt":
            assert inputs.dtype == torch.int64
            assert inputs.shape == targets.shape
            assert inputs.min() >= 0
            assert inputs.max() < task.model_options["vocabulary"]
        else:
            assert inputs.dtype == torch.float32
            assert inputs.shape[1:] == task.model_options["image"]


def test_the_evaluation_set_is_fixed_and_complete_whatever_the_batch_size(task):
    whole = task.held_out()
    for batch_size in (7, 10**6):
        batches = list(task.evaluation(batch_size))
        assert all(len(inputs) <= batch_size for inputs, _ in batches)
        assert equal(whole, [torch.cat(part) for part in zip(*batches, strict=True)])


def test_a_task_says_what_it_is(task):
    assert task.kind in {"language", "classification"}
    assert isinstance(task.metric, Metric)
    assert task.metric.better == ("higher" if task.metric == ACCURACY else "lower")
    assert type(task).options() == [field.name for field in dataclasses.fields(task)]
    assert task.recipe.warmup < task.recipe.steps
    assert type(task).__doc__.splitlines()[0].endswith(".")


def test_no_batch_of_another_process_differs():
    code = (
        "from manymax.data.registry import create_task;"
        "print(create_task('recall').batch('train', 7, 4, seed=2)[0].sum().item(),"
        "create_task('listops').batch('train', 7, 4, seed=2)[0].sum().item())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = [create_task(name).batch("train", 7, 4, seed=2)[0].sum().item() for name in ("recall", "listops")]
    assert [int(x) for x in answer] == here


def test_streams_differ_in_every_part():
    parts = [(0, 1), (1, 0), ("01",), (0, 11), (0, 1, 1)]
    assert len({torch.rand((), generator=stream(*each)).item() for each in parts}) == 5


def test_share_is_even_and_stable():
    shares = torch.tensor([share(str(i)) for i in range(2000)])
    assert share("specialnames") == pytest.approx(0.147214, abs=1e-6)
    assert abs(float(shares.mean()) - 0.5) < 0.03
    assert abs(float((shares < 0.125).float().mean()) - 0.125) < 0.03


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: create_task("txet"), ValueError, "name: expected one of digits, .*got 'txet'; did you mean 'text'"),
        (lambda: create_task("recall", pair=3), TypeError, "recall has no option 'pair'; .*did you mean 'pairs'"),
        (lambda: create_task("recall").batch("test", 0, 1), ValueError, "split: expected 'train' or"),
        (lambda: create_task("recall").batch("train", 0, 0), ValueError, "batch_size: expected at least 1, got 0"),
        (lambda: create_task("modular", modulus=3).batch("train", 0, 99), ValueError, "batch_size: expected at most"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
