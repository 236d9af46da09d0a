"""The other instruction sets that this machine runs, each forced in a process of its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from manymax.kernels.native import native, status

pytestmark = pytest.mark.skipif(native() is None, reason=status())
HERE = pathlib.Path(__file__).parent


def run(isa: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, "MANYMAX_ISA": isa}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("isa", native().isas() if native() else [])
def test_rows_on(isa):
    shown = run(isa, "-c", "from manymax import kernels; print(kernels.status())")
    assert shown.stdout.strip() == f"native CPU kernels for {isa}"
    if shown.stdout.strip() != status():
        files = [str(HERE / name) for name in ("test_rows.py", "test_rows_random.py")]
        done = run(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *files)
        assert done.returncode == 0, done.stdout[-3000:]


def test_unknown_isa_names_the_choices():
    done = run("sse", "-c", "from manymax import kernels; kernels.status()")
    assert done.returncode != 0
    assert f"MANYMAX_ISA: expected one of {', '.join(native().isas())} on this machine, got 'sse'" in done.stderr
