import re

import pytest
import torch

from manymax.data.registry import create_task
from manymax.data.task import IGNORED
from manymax.data.text import RUN, _runs, _without, topics


def bytes_of(task, split):
    """The split's text, put together again from the evaluation pieces or read from the task."""
    return bytes(task._splits[split].tolist())


def runs(text):
    words = text.split()
    return {" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


def test_nothing_of_the_held_out_topics_is_in_training():
    train, held_out = (part.decode() for part in topics())
    assert not runs(train) & runs(held_out)
    # Without the removal it would leak: `compound` holds `for` and `with`, which are held out.
    compound = __import__("pydoc_data.topics").topics.topics["compound"]
    assert len(runs(compound) & runs(held_out)) > 100


def test_every_line_that_a_shared_run_touches_goes():
    words = [f"w{i}" for i in range(RUN)]
    held_out = " ".join(words)
    quoting = [
        f"before {held_out} after",
        "kept",
        f"start {' '.join(words[:5])}",
        f"{' '.join(words[5:])} end",
        "kept too",
    ]
    shared = {run for run, _ in _runs(held_out)}
    assert _without("\n".join(quoting) + "\n", shared) == "kept\nkept too\n"
    almost = " ".join(words[1:])
    assert _without(almost, shared) == almost


def test_the_documentation_is_large_enough_and_split_by_name():
    train, held_out = topics()
    assert len(train) > 350_000
    assert 20_000 < len(held_out) < 60_000
    assert b'The "with" statement' in held_out
    assert b'The "assert" statement' not in held_out
    task = create_task("text")
    assert (bytes_of(task, "train"), bytes_of(task, "validation")) == (train, held_out)


def test_batches_are_pieces_of_the_split_and_targets_the_next_bytes():
    task = create_task("text", length=24)
    for split in ("train", "validation"):
        text = bytes_of(task, split)
        inputs, targets = task.batch(split, 1, 16)
        assert inputs.shape == (16, 24)
        for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert bytes([*x, y[-1]]) in text
            assert x[1:] == y[:-1]


def test_batches_reach_both_ends(tmp_path):
    path = tmp_path / "short.txt"
    path.write_bytes(bytes(range(200)))
    task = create_task("text", path=str(path), length=8)
    inputs, targets = task.batch("validation", 0, 500)
    assert set(inputs.flatten().tolist()) == set(range(180, 199))
    assert int(targets.max()) == 199


def test_evaluation_asks_every_byte_but_the_first_once():
    task = create_task("text", length=50)
    text = bytes_of(task, "validation")
    inputs, targets = task.held_out()
    asked = targets != IGNORED
    assert bytes(targets[asked].tolist()) == text[1:]
    assert bytes(inputs[asked].tolist()) == text[:-1]
    assert (~asked).sum() < 50


def test_a_file_is_cut_without_overlap(tmp_path):
    path = tmp_path / "mine.py"
    content = bytes(torch.randint(256, (5000,)).tolist())
    path.write_bytes(content)
    task = create_task("text", path=str(path), length=16)
    assert bytes_of(task, "train") + bytes_of(task, "validation") == content
    assert len(bytes_of(task, "validation")) == 500


def test_a_folder_is_split_by_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    for i in range(40):
        (tmp_path / ("deep" if i % 2 else ".") / f"{i}.md").write_bytes(bytes([65 + i]) * (100 + i))
    (tmp_path / "copy.md").write_bytes(b"A" * 100)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0" * 50)
    (tmp_path / ".git" / "config").write_bytes(b"secret" * 50)
    (tmp_path / "empty.txt").write_bytes(b"")
    task = create_task("text", path=str(tmp_path), length=16)
    train, held_out = (set(re.findall(rb"[^\n]+", bytes_of(task, split))) for split in ("train", "validation"))
    assert train | held_out == {bytes([65 + i]) * (100 + i) for i in range(40)}
    assert not train & held_out
    assert 2 <= len(held_out) <= 4
    again = create_task("text", path=str(tmp_path), length=16)
    assert bytes_of(again, "validation") == bytes_of(task, "validation")


def test_a_folder_of_two_holds_out_the_smaller(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 300)
    (tmp_path / "b.txt").write_bytes(b"b" * 200)
    task = create_task("text", path=str(tmp_path), length=16)
    assert bytes_of(task, "validation") == b"b" * 200


def test_errors(tmp_path):
    missing = tmp_path / "nothing.txt"
    with pytest.raises(FileNotFoundError, match=f"path: no file or folder {missing}"):
        create_task("text", path=str(missing))
    for content in (b"", b"short", b"x" * 900):
        path = tmp_path / "small.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path: expected more than 128 bytes for \w+, got \d+ of .*small.txt"):
            create_task("text", path=str(path))
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        create_task("text", length=0)
