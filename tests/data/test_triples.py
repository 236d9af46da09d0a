from itertools import combinations

import pytest
import torch

from manymax.data.registry import create_task
from manymax.data.triples import Triples

OPTIONS = [{}, {"tokens": 9, "values": 7, "attributes": 3}, {"tokens": 8, "values": 20, "attributes": 2}]


def attributes_of(task, images):
    """The values of each attribute of each token, (B, attributes, tokens), from the image."""
    assert images.shape[1:] == (task.attributes * task.values, 1, task.tokens)
    codes = images.reshape(len(images), task.attributes, task.values, task.tokens)
    assert torch.equal(codes.amax(2), torch.full_like(codes[:, :, 0], task.values**0.5))
    assert torch.equal((codes != 0).sum(2), torch.ones_like(codes[:, :, 0], dtype=torch.int64))
    return codes.argmax(2)


def counts_of(task, images):
    """How often each value of each attribute comes, (B, attributes, values)."""
    return torch.nn.functional.one_hot(attributes_of(task, images), task.values).sum(2)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_answers_by_looking_at_all_triples(options, split):
    task = create_task("triples", **options)
    images, targets = task.batch(split, 0, 60)
    for values, target in zip(attributes_of(task, images).tolist(), targets.tolist(), strict=True):
        found = [
            (attribute, triple)
            for attribute in range(task.attributes)
            for triple in combinations(range(task.tokens), 3)
            if len({values[attribute][i] for i in triple}) == 1
        ]
        assert len(found) == target  # a value that came four times would make four


@pytest.mark.parametrize("options", OPTIONS)
def test_classes_are_balanced(options):
    task = create_task("triples", validation=10, **options)
    assert task.batch("train", 3, 64)[1].sum() == 32
    assert task.batch("train", 3, 7)[1].sum() == 3
    assert task.held_out()[1].sum() == 5
    images, _ = task.batch("train", 0, 8)
    torch.testing.assert_close(images.square().mean(), torch.tensor(1.0))


def test_every_attribute_may_have_the_triple():
    task = Triples(attributes=3)
    images, targets = task.batch("train", 0, 6000)
    where = (counts_of(task, images).amax(2) == 3)[targets == 1]
    assert torch.equal(where.sum(1), torch.ones(3000, dtype=torch.int64))
    assert ((where.double().mean(0) - 1 / 3).abs() < 0.03).all()


def right_at_best(numbers, targets):
    """How often the best guess from one number is right."""
    table = torch.zeros(2, int(numbers.max()) + 1)
    table.index_put_((targets, numbers), torch.ones(len(targets)), accumulate=True)
    return float(table.amax(0).sum() / len(targets))


@pytest.mark.parametrize("options", [{}, {"tokens": 15, "values": 14}, {"attributes": 2}])
def test_neither_shortcut_tells_more_than_it_may(options):
    task = Triples(**options)
    images, targets = task.batch("train", 0, 20000)
    counts = counts_of(task, images)
    differing = (counts > 0).sum((1, 2))
    pairs = (counts * (counts - 1) // 2).sum((1, 2))
    bound = 0.5 + 1 / (4 * (task.tokens // 2 - 3) + 4)
    assert right_at_best(differing, targets) < bound + 0.01
    assert right_at_best(pairs, targets) < bound + 0.01
    assert right_at_best(pairs + differing, targets) == 1
    if task.attributes == 1:  # the bound is what it is, not lower
        assert min(right_at_best(differing, targets), right_at_best(pairs, targets)) > bound - 0.01


def test_pairs_are_as_many_as_is_said():
    task = Triples(tokens=13, values=12)
    images, targets = task.batch("train", 0, 40000)
    twice = (counts_of(task, images) == 2).sum((1, 2))
    shares = [torch.bincount(twice[targets == t], minlength=7) / 20000 for t in (0, 1)]
    even = torch.tensor([1, 1, 1, 1, 0, 0, 0]) / 4
    assert ((shares[1] - even).abs() < 0.015).all()
    assert ((shares[0] - (even.roll(2) + even.roll(3)) / 2).abs() < 0.015).all()


def test_values_and_places_are_all_alike():
    task = Triples()
    images, targets = task.batch("train", 0, 20000)
    values = attributes_of(task, images)[:, 0]
    for target in (0, 1):
        shares = torch.nn.functional.one_hot(values[targets == target], task.values).double().mean((0, 1))
        assert ((shares - 1 / task.values).abs() < 0.004).all()
    counts = counts_of(task, images)[:, 0]
    thrice = counts.gather(1, values)[targets == 1] == 3
    assert ((thrice.double().mean(0) - 3 / task.tokens).abs() < 0.02).all()
    assert ((counts.argmax(1)[targets == 1].bincount() / 10000 - 1 / task.values).abs() < 0.015).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": 7}, "tokens: expected at least 8, got 7"),
        ({"tokens": 13}, "values: expected at least 11, got 10"),
        ({"attributes": 0}, "attributes: expected at least 1, got 0"),
        ({"validation": 1}, "validation: expected at least 2, got 1"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        Triples(**options)
