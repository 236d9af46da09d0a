import pytest
import torch

from manymax.data.registry import create_task
from manymax.data.task import IGNORED


@pytest.mark.parametrize(("modulus", "share"), [(113, 0.4), (7, 0.25)])
def test_the_whole_table_is_there_once(modulus, share):
    task = create_task("modular", modulus=modulus, train_share=share)
    parts = [task.examples(split) for split in ("train", "validation")]
    assert len(parts[0][0]) == round(share * modulus**2)
    inputs, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    rows = {(a, b) for a, b, _ in inputs.tolist()}
    assert len(inputs) == len(rows) == modulus**2
    assert bool((inputs[:, 2] == modulus).all())
    for (a, b, _), (first, second, answer) in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert first == second == IGNORED
        assert answer == (a + b) % modulus


def test_the_split_is_random_but_always_the_same():
    first, again = (create_task("modular", modulus=23).examples("train")[0] for _ in range(2))
    assert torch.equal(first, again)
    assert 9 < float(first[:, 0].double().mean()) < 13  # in order it would be 4.4


def test_a_batch_of_all_is_the_training_set_and_has_no_row_twice():
    task = create_task("modular", modulus=11)
    inputs, _ = task.batch("train", 4, 48)
    assert {tuple(row) for row in inputs.tolist()} == {tuple(row) for row in task.examples("train")[0].tolist()}


@pytest.mark.parametrize("options", [{"modulus": 1}, {"train_share": 0.0}, {"train_share": 1.0}, {"train_share": 1.5}])
def test_errors(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        create_task("modular", **options)
