"""Installation where there is no C++ compiler: CMake goes on, and the package says what is missing."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from manymax.kernels import native

ROOT = pathlib.Path(__file__).parents[2]
CMAKE = shutil.which("cmake", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return what CMake says and the folder that it installs into, without a compiler."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    env = {**os.environ, "CXX": "/nonexistent"}
    configured = subprocess.run(
        [CMAKE, "-S", ROOT, "-B", build], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert configured.returncode == 0, configured.stderr
    subprocess.run([CMAKE, "--install", build, "--prefix", prefix], capture_output=True, check=True, timeout=60)
    return configured.stderr, prefix


def test_cmake_warns_and_installs_the_reason(installed):
    said, prefix = installed
    assert "manymax is installed without its CPU kernels: no C++ compiler" in said
    assert [path.name for path in prefix.rglob("*") if path.is_file()] == ["_missing.py"]


def test_status_gives_the_reason(installed, monkeypatch):
    _, prefix = installed
    spec = importlib.util.spec_from_file_location("_missing", prefix / "manymax" / "kernels" / "_missing.py")
    missing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(missing)
    monkeypatch.setitem(sys.modules, "manymax.kernels._missing", missing)
    monkeypatch.setitem(sys.modules, "manymax.kernels._cpu", None)  # import raises ModuleNotFoundError
    monkeypatch.delenv("MANYMAX_ISA", raising=False)
    module, status = native._load.__wrapped__()
    assert module is None
    assert status.startswith("the native CPU kernels are not built: no C++ compiler was found")
