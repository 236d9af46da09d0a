"""Words and names as classes, in the order of their frequency."""

from itertools import groupby

import pytest
import torch

from manymax.data import words as words_module
from manymax.data.registry import create_task
from manymax.data.text import topics
from manymax.data.words import numbered


def test_the_most_frequent_words_come_first_and_unknown_ones_are_class_0():
    train = list("babcabdde")
    known, first, second = numbered(train, list("eafbd"), 10)
    assert known == ("b", "a", "d")  # c and e stand there once; a is before d in the alphabet
    assert first.tolist() == [1, 2, 1, 0, 2, 1, 3, 3, 0]
    assert second.tolist() == [0, 2, 0, 1, 3]
    assert numbered(train, [], 2)[0] == ("b", "a")


def cut(text):
    """Return runs of letters, digits and underscores, and each other sign by itself."""
    words = []
    for is_word, letters in groupby(text, lambda letter: letter.isalnum() or letter == "_"):
        run = "".join(letters)
        words += [run] if is_word else "".join(run.split())
    return words


def written(task, split):
    """The split's words, unknown ones as None."""
    return [task.known[number - 1] if number else None for number in task._splits[split].tolist()]


def test_words_are_those_of_the_documentation_in_the_text_tasks_split():
    task = create_task("words")
    for split, text in zip(("train", "validation"), topics(), strict=True):
        expected = cut(text.decode())
        found = written(task, split)
        assert len(found) == len(expected)
        assert all(mine in {word, None} for mine, word in zip(found, expected, strict=True))
    assert 2000 < task.num_classes < 8000
    assert set(task.known) >= {"the", "(", "__init__", "exception"}
    counts = torch.bincount(task._splits["train"])[1:]
    assert (counts[:-1] >= counts[1:]).all()
    assert counts.min() >= 2


def test_a_smaller_vocabulary_keeps_the_most_frequent_words():
    whole, small = create_task("words"), create_task("words", vocabulary=100)
    assert small.num_classes == 101
    assert small.known == whole.known[:100]
    assert (small._splits["train"] == 0).sum() > (whole._splits["train"] == 0).sum()
    assert small.model_options == {"vocabulary": 101}


def test_targets_are_the_next_words():
    task = create_task("words", length=7)
    inputs, targets = task.batch("train", 0, 4)
    assert inputs.shape == (4, 7)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    rows = task._splits["train"].long().unfold(0, 8, 1)
    assert all((rows == torch.cat([x, y[-1:]])).all(1).any() for x, y in zip(inputs, targets, strict=True))
    asked = task.held_out()[1]
    assert int((asked >= 0).sum()) == len(task._splits["validation"]) - 1


def test_words_of_a_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one two, one two; " * 30)
    task = create_task("words", path=str(file), length=4)
    assert task.known == ("one", "two", ",", ";")
    assert (len(task._splits["train"]), len(task._splits["validation"])) == (162, 18)
    with pytest.raises(ValueError, match=r"path: expected more than 18 words for validation, got 18 of .*a.txt"):
        create_task("words", path=str(file), length=18)
    with pytest.raises(FileNotFoundError, match="path: no file or folder"):
        create_task("words", path=str(tmp_path / "b.txt"))
    with pytest.raises(ValueError, match="vocabulary: expected at least 1, got 0"):
        create_task("words", vocabulary=0)


def test_the_library_has_tens_of_thousands_of_names():
    task = create_task("library", validation=1000)
    assert 20_000 < task.num_classes <= 50_001
    assert set(task.known[:50]) >= {"self", "def", "if", "return"}
    assert not [word for word in task.known if not word.isidentifier()]
    inputs, targets = task.held_out()
    assert inputs.shape == targets.shape == (1000 // 32, 32)
    rows = task._splits["validation"].long().unfold(0, 32, 32)
    assert (rows == inputs[0]).all(1).nonzero().tolist() == [[0]]
    assert (rows == inputs[-2]).all(1).nonzero().max() > 0.9 * len(rows)  # from the first file to the last
    whole = create_task("library", validation=10**6).held_out()[1]
    assert int((whole >= 0).sum()) == len(task._splits["validation"]) - 1
    assert create_task("library", vocabulary=500).num_classes == 501


def test_files_of_the_library_are_on_one_side_and_tests_on_none(tmp_path, monkeypatch):
    monkeypatch.setattr(words_module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(words_module, "share", lambda path: 0.0 if path == "in/b.py" else 0.5)
    for name, text in {
        "a.py": "spam = spam + 1  # eggs 2x x2",
        "in/b.py": "spam(eggs, ham)",
        "test/c.py": "no no",
        "in/site-packages/d.py": "no no",
        "e.txt": "no no",
        "z.py": "eggs",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words_module._library.cache_clear()
    task = create_task("library", length=1)
    assert task.known == ("eggs", "spam")
    assert written(task, "train") == ["spam", "spam", "eggs", None, None, "eggs"]  # x of 2x, x2
    assert written(task, "validation") == ["spam", "eggs", None]
    words_module._library.cache_clear()
