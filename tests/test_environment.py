from pathlib import Path

import torch

from manymax import _environment
from manymax._environment import environment


def test_environment_names_code_versions_and_machine():
    record = environment("bfloat16")
    assert set(record) == {"commit", "manymax", "torch", "python", "processor", "threads", "dtype", "platform"}
    assert record["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()
    assert record["dtype"] == "bfloat16"
    assert record["processor"]


def test_commit_outside_a_repository_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(_environment, "__file__", str(tmp_path / "_environment.py"))
    _environment.commit.cache_clear()
    assert _environment.commit() == ""
    monkeypatch.undo()
    _environment.commit.cache_clear()
    assert Path(_environment.__file__).exists()


def test_commit_without_git_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    _environment.commit.cache_clear()
    assert _environment.commit() == ""
    _environment.commit.cache_clear()
