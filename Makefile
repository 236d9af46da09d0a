# Two commands do everything on a fresh machine: `make compare` and `make test`. Each sets up .venv by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WORKERS ?= 2

.PHONY: compare test test-slow lint docs bench claims clean

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

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/manymax bench attention
	$(BIN)/manymax bench maps

claims: $(READY)
	$(BIN)/manymax claims run all

# Everything that the package and its tests need, at the versions they are tested with.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist site runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
