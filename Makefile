# Two commands do everything on a fresh machine: `make compare` and `make test`. Each sets up .venv by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WORKERS ?= 2

.PHONY: compare test test-slow lint docs bench claims sanitize clean

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
sanitize: $(READY)
	cmake -S . -B build/sanitize -DMANYMAX_TESTS=ON -DMANYMAX_GENERIC=ON -DCMAKE_BUILD_TYPE=None \
	  -DCMAKE_CXX_FLAGS="$(SANITIZERS)" -DCMAKE_EXE_LINKER_FLAGS="$(SANITIZERS)"
	cmake --build build/sanitize --parallel $(WORKERS)
	build/sanitize/src/manymax/kernels/cpu/test_kernels

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Every goal of the kernels beside what they reach, on a machine with nothing else to do; it also writes the numbers of the
# site's tables and pictures. `make bench QUICK=1` is short and noisy, and writes nothing.
bench: $(READY)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick,--json docs/benchmarks.json)

claims: $(READY)
	$(BIN)/manymax claims run all

# Everything that the package and its tests need, at the versions they are tested with.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist site runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
