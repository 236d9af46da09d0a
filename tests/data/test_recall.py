import pytest
import torch

from manymax.data.registry import create_task
from manymax.data.task import IGNORED

OPTIONS = [
    {},
    {"vocabulary": 32, "pairs": 7, "length": 40, "power": 1.0},
    {"vocabulary": 8192, "pairs": 16, "length": 64, "filler": False},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_targets_are_found_by_looking_the_key_up(options):
    task = create_task("recall", **options)
    inputs, targets = task.batch("train", 0, 32)
    half, context = task.vocabulary // 2, 2 * task.pairs
    assert inputs.shape == (32, task.length)
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        keys, values = x[0:context:2], x[1:context:2]
        assert len(set(keys)) == len(set(values)) == task.pairs
        assert all(1 <= key < half for key in keys)
        assert all(half <= value < task.vocabulary for value in values)
        asked = [i for i in range(task.length) if y[i] != IGNORED]
        assert sorted(x[i] for i in asked) == sorted(keys)
        assert all(i >= context and (i - context) % 2 == 0 for i in asked)
        assert all(y[i] == values[keys.index(x[i])] for i in asked)


def test_filler_is_random_tokens_or_zero():
    asked = create_task("recall").batch("train", 0, 256)
    zero = create_task("recall", filler=False).batch("train", 0, 256)
    for (inputs, targets), tokens in ((asked, 64), (zero, 1)):
        rest = inputs[:, 8:][targets[:, 8:] == IGNORED]
        assert len(rest.unique()) == tokens


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_gaps_follow_the_power_law(power):
    task = create_task("recall", pairs=1, length=22, power=power)
    _, targets = task.batch("train", 0, 20000)
    slots = (targets[:, 2:] != IGNORED).nonzero()[:, 1] // 2
    odds = torch.arange(1, 11, dtype=torch.float64) ** (power - 1)
    shares = torch.bincount(slots, minlength=10) / len(slots)
    torch.testing.assert_close(shares.double(), odds / odds.sum(), atol=0.015, rtol=0)


def test_held_out_sequences_are_none_of_the_first_training_ones():
    task = create_task("recall", validation=300)
    seen = {tuple(row) for i in range(20) for row in task.batch("train", i, 64)[0].tolist()}
    assert len(task.held_out()[0]) == 300
    assert not seen & {tuple(row) for row in task.held_out()[0].tolist()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 14}, "length: expected at least 16, got 14"),
        ({"length": 33}, "length: expected an even number, got 33"),
        ({"vocabulary": 8}, "vocabulary: expected at least 10, got 8"),
        ({"vocabulary": 63}, "vocabulary: expected an even number, got 63"),
        ({"pairs": 0}, "pairs: expected at least 1, got 0"),
        ({"validation": 0}, "validation: expected at least 1"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        create_task("recall", **options)


def test_the_least_vocabulary_works():
    inputs, _ = create_task("recall", vocabulary=10, pairs=4, length=16).batch("train", 0, 50)
    assert int(inputs.max()) == 9
