# Every target makes its own environment from the constraints file first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Processes that share the tests; many of them wait for others that they start and kill.
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test check bench format clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# The main job on the embedded data: pairs, pre-training, probe, table, page.
demo: setup
	$(BIN)/pixcloud demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Formatting, lint, types.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks all --out runs/benchmarks.jsonl

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
