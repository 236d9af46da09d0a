# Two commands do everything on a fresh machine: `make compare` and `make test`. Each sets up .venv by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WORKERS ?= 2

.PHONY: compare test test-slow test-neon test-wheel test-lowest lint docs bench claims sanitize wheel clean

compare: $(READY)
	$(BIN)/manymax compare

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -q

test-slow: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -q -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The kernels' C++ tests under the address and undefined-behaviour sanitizers, the form for any machine included.
SANITIZERS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
KERNEL_TESTS := src/manymax/kernels/cpu/test_kernels
sanitize: $(READY)
	$(BIN)/cmake -S . -B build/sanitize -DMANYMAX_TESTS=ON -DMANYMAX_GENERIC=ON -DCMAKE_BUILD_TYPE=None \
	  -DCMAKE_CXX_FLAGS="$(SANITIZERS)" -DCMAKE_EXE_LINKER_FLAGS="$(SANITIZERS)"
	$(BIN)/cmake --build build/sanitize --parallel $(WORKERS)
	build/sanitize/$(KERNEL_TESTS)

# The same tests of the form for 64-bit ARM, built with Debian's cross compiler and run under an emulator.
test-neon: $(READY)
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	  { echo "make test-neon needs a cross compiler and an emulator: apt-get install g++-aarch64-linux-gnu qemu-user" >&2; exit 2; }
	$(BIN)/cmake -S . -B build/neon -DMANYMAX_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=tests/kernels/cpu/aarch64.cmake
	$(BIN)/cmake --build build/neon --parallel $(WORKERS)
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/neon/$(KERNEL_TESTS)

# Wheels for Linux in dist/, from the source archive, one for each of PYTHONS; 3.12 and later share one. With GCC 12 they need
# glibc 2.27: libstdc++ is linked in, and portable.cpp keeps newer symbols out. torch's own wheels need 2.28.
PYTHONS ?= $(BIN)/python
wheel: $(READY)
	rm -rf dist build/wheel
	$(BIN)/python -m build --sdist --outdir dist
	for python in $(PYTHONS); do \
	  $$python -m pip wheel --no-deps --wheel-dir build/wheel --config-settings=cmake.define.MANYMAX_PORTABLE=ON dist/*.tar.gz || exit 1; done
	PATH="$(CURDIR)/$(BIN):$$PATH" auditwheel repair --plat manylinux_2_28_$$(uname -m) --wheel-dir dist build/wheel/*.whl

# Those wheels where nothing can compile, with the newest torch and the oldest.
test-wheel: $(READY)
	$(BIN)/python tests/packaging/try_wheel.py

# The integrations with the lowest transformers and timm that pyproject.toml allows, in an environment of their own.
test-lowest: $(READY)
	$(BIN)/python tests/packaging/try_lowest.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Every goal of the kernels beside what they reach, on a machine with nothing else to do; it also writes the numbers of the
# site's tables and pictures. `make bench QUICK=1` is short and noisy, and writes nothing.
bench: $(READY)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick,--json docs/benchmarks.json)

claims: $(READY)
	$(BIN)/manymax claims run all
	cp runs/claims/claims.json docs/claims.json

# Everything that the package and its tests need, at the versions they are tested with.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist site runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
