"""One OpenMP runtime in the process, torch's own, with its functions in sight of the kernels."""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import sys

import pytest

from manymax.kernels.native import native, openmp, status

pytestmark = pytest.mark.skipif(native() is None or not sys.platform.startswith("linux"), reason=status())

RUNTIMES = """
import pathlib
from manymax import kernels
kernels.status()
paths = {line.split()[-1] for line in pathlib.Path("/proc/self/maps").read_text().splitlines()}
print(*sorted(path for path in paths if "omp" in pathlib.Path(path).name and ".so" in path), sep="\\n")
"""


def test_the_kernels_bring_no_second_runtime():
    done = subprocess.run([sys.executable, "-c", RUNTIMES], capture_output=True, text=True, check=True)
    assert [os.path.realpath(line) for line in done.stdout.splitlines()] == [os.path.realpath(openmp())]


def test_the_runtime_is_the_one_that_torch_calls():
    assert pathlib.Path(openmp()).is_file()
    assert ctypes.CDLL(None).GOMP_parallel  # in the global scope, where the kernels look for it


def test_a_hidden_runtime_is_made_visible(tmp_path):
    """Debian's torch keeps its runtime to itself: here any other library plays its part."""
    hidden = "import ctypes, manymax.kernels.native as n; n.openmp = lambda: 'libbz2.so.1.0'; n._share_openmp()"
    shown = f"{hidden}; ctypes.CDLL(None).BZ2_bzlibVersion"
    if (
        subprocess.run([sys.executable, "-c", "import ctypes; ctypes.CDLL('libbz2.so.1.0')"], check=False).returncode
        != 0
    ):
        pytest.skip("there is no libbz2 to play the runtime")
    subprocess.run([sys.executable, "-c", shown], check=True)
    without = subprocess.run(
        [sys.executable, "-c", "import ctypes; ctypes.CDLL('libbz2.so.1.0'); ctypes.CDLL(None).BZ2_bzlibVersion"],
        capture_output=True,
        check=False,
    )
    assert without.returncode != 0
