import errno
import json
import math
import subprocess

import pytest

from manymax.compare import results
from manymax.compare.results import Store, finite, latest, read, write_json


def test_lines_come_back_in_order(tmp_path):
    store = Store(tmp_path / "run")
    for job in ("a", "b"):
        store.append({"job": job, "metrics": {"x": [1.5, 2]}})
    store.close()
    assert read(store.path) == [{"job": job, "metrics": {"x": [1.5, 2]}} for job in ("a", "b")]
    assert not (tmp_path / "run" / results.RESERVE_NAME).exists()
    assert read(tmp_path / "nothing.jsonl") == []


def test_numbers_that_json_cannot_say_become_null():
    assert finite({"a": [math.nan, (1.0, -math.inf)], "b": 2}) == {"a": [None, [1.0, None]], "b": 2}


@pytest.mark.parametrize("cut", [b'{"job": "c", "me', b'{"job": "\xc3'])
def test_a_cut_off_last_line_is_left_out_and_then_overwritten(tmp_path, cut):
    store = Store(tmp_path)
    store.append({"job": "a"})
    with store.path.open("ab") as file:
        file.write(cut)
    assert read(store.path) == [{"job": "a"}]
    again = Store(tmp_path)
    again.append({"job": "b"})
    assert [line["job"] for line in read(again.path)] == ["a", "b"]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"job": "a"}\n{"job"\n{"job": "b"}\n')
    with pytest.raises(ValueError, match="line 2 is damaged"):
        read(path)


def test_the_latest_line_of_a_job_counts():
    lines = [{"job": "a", "status": "crashed"}, {"job": "b", "status": "ok"}, {"job": "a", "status": "ok"}]
    assert {name: line["status"] for name, line in latest(lines).items()} == {"a": "ok", "b": "ok"}


def test_write_json_leaves_the_old_file_if_it_fails(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": None}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": None}


def test_a_full_disk_costs_no_line(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append({"job": "a"})

    def full(descriptor):
        if (tmp_path / results.RESERVE_NAME).exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "_sync", full)
    store.append({"job": "b"})
    assert store.full is not None
    assert store.full.errno == errno.ENOSPC
    assert [line["job"] for line in read(store.path)] == ["a", "b"]


def test_a_disk_fuller_than_the_reserve_raises_and_keeps_whole_lines(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append({"job": "a"})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        store.append({"job": "b"})
    assert store.path.read_text() == '{"job": "a"}\n'


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(results, "_sync", broken)
    with pytest.raises(OSError, match="Input/output"):
        store.append({"job": "a"})
    assert store.full is None


def test_a_really_full_disk(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        store = Store(tmp_path)
        subprocess.run(["dd", "if=/dev/zero", f"of={tmp_path}/else", "bs=4k"], capture_output=True, check=False)
        store.append({"job": "a", "long": "x" * 20_000})
        assert store.full is not None
        assert [line["job"] for line in read(store.path)] == ["a"]
        store.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
