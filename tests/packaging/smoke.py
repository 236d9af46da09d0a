"""What `make test-wheel` asks of an installed wheel where nothing can compile: exits with 0, or says what is wrong."""

import os
import pathlib
import shutil

import torch

import manymax as mm
from manymax import kernels
from manymax.kernels.native import native, openmp

print(f"torch {torch.__version__}, {kernels.status()}")
assert native() is not None, kernels.status()

for compiler in ("cc", "c++", "gcc", "g++", "clang", "clang++"):
    assert shutil.which(compiler) is None, f"{compiler} is on PATH"

package = pathlib.Path(mm.__file__).parent
sources = [path for suffix in ("*.cpp", "*.h", "CMakeLists.txt") for path in package.rglob(suffix)]
assert not sources, f"the wheel brought sources: {sources}"

x = torch.randn(64, 5000, requires_grad=True)
torch.testing.assert_close(mm.softmax(x), torch.softmax(x, -1))
torch.testing.assert_close(mm.entmax15(x).sum(-1), torch.ones(64))
q = torch.randn(2, 4, 600, 32, requires_grad=True)
out = mm.attention(q, q, q, is_causal=True)
torch.testing.assert_close(out, torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True))
out.sum().backward()

lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
files = {line.split()[-1] for line in lines if "omp" in pathlib.Path(line.split()[-1]).name and ".so" in line}
assert {os.path.realpath(file) for file in files} == {os.path.realpath(openmp() or "")}, f"OpenMP runtimes: {files}"
