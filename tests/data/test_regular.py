"""Regular languages against what they mean, worked out from the symbols."""

import pytest
import torch

from manymax.data.registry import create_task
from manymax.data.regular import LANGUAGES
from manymax.data.task import IGNORED


def draw(language, **options):
    task = create_task("regular", language=language, length=13, **options)
    return task, *task.batch("train", 0, 40, seed=1)


def test_parity_counts_ones():
    _, inputs, targets = draw("parity")
    assert torch.equal(targets, inputs.cumsum(1) % 2)


def test_even_pairs_compare_the_ends():
    _, inputs, targets = draw("even-pairs")
    assert torch.equal(targets, (inputs == inputs[:, :1]).long())


def test_a_walk_on_a_cycle():
    task, inputs, targets = draw("cycle", order=4)
    moves = torch.tensor([0, 1, -1])[inputs].cumsum(1) % 4
    assert task.num_classes == 4
    pairs = {(a, b) for a, b in zip(moves.flatten().tolist(), targets.flatten().tolist(), strict=True)}
    assert len(pairs) == 4
    assert (0, 0) in pairs  # each place has one label


def test_arithmetic_is_what_python_says():
    task, inputs, targets = draw("arithmetic", order=7)
    signs = [*map(str, range(7)), "+", "-", "*"]
    assert task.model_options == {"vocabulary": 10, "num_classes": 7}
    for row, answers in zip(inputs.tolist(), targets.tolist(), strict=True):
        for end in range(1, 14, 2):
            assert answers[end - 1] == eval("".join(signs[x] for x in row[:end])) % 7
    assert (targets[:, 1::2] == IGNORED).all()


@pytest.mark.parametrize(("language", "sign"), [("commutative", 1), ("dihedral", -1)])
def test_toggles_and_steps(language, sign):
    """A state is whether toggles are odd and where steps have led, which toggles turn around in the dihedral group."""
    task, inputs, targets = draw(language, order=3)
    toggled = (inputs == 0).cumsum(1) % 2
    place = ((inputs == 1) * sign**toggled).cumsum(1) % 3
    assert task.num_classes == 6
    pairs = {(a, b) for a, b in zip((3 * toggled + place).flatten().tolist(), targets.flatten().tolist(), strict=True)}
    assert len(pairs) == 6


def test_the_alternating_group_has_sixty_elements_and_does_not_commute():
    table = create_task("regular", language="alternating").automaton.table
    assert table.shape == (60, 2)
    assert all(sorted(column) == list(range(60)) for column in table.T.tolist())
    assert table[table[0, 0], 1] != table[table[0, 1], 0]
    commutative = create_task("regular", language="commutative").automaton.table
    assert commutative[commutative[:, 0], 1].equal(commutative[commutative[:, 1], 0])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_last_place_alone_and_longer_tests(language):
    task, inputs, targets = draw(language, every=False, test_length=31)
    full = create_task("regular", language=language, length=13)
    assert (targets[:, :-1] == IGNORED).all()
    assert torch.equal(targets[:, -1], full.batch("train", 0, 40, seed=1)[1][:, -1])
    assert task.held_out()[0].shape == (256, 31)
    assert inputs.shape == (40, 13)


def test_wrong_options():
    for options, words in [
        ({"language": "partiy"}, "language: expected one of .*did you mean 'parity'"),
        ({"order": 1}, "order: expected at least 2, got 1"),
        ({"test_length": 0}, "test_length: expected at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            create_task("regular", **options)
