# The way in: `make demo` and `make test` work on any machine with Python ≥ 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# leaves the machine's other core to itself when there are many; tests start processes of their own
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-all lint types check bench clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "respike needs Python 3.11 or later; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

install: $(VENV)/.installed ## a virtual environment with the exact versions of constraints.txt
install-dev: $(VENV)/.installed-dev ## the same with what tests and checks need

demo: install ## make videos, prepare, train, score; opens with demo/report.html
	$(BIN)/respike demo

test: install-dev ## the test suite, minutes
	$(BIN)/pytest -n $(TEST_WORKERS) -m 'not slow'

test-all: install-dev ## every test, the slow ones and the demo as well
	$(BIN)/pytest -n $(TEST_WORKERS)

lint: install-dev ## ruff: style, docstrings, common errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## mypy, strict, on respike/
	$(BIN)/mypy

check: lint types test ## what has to pass before a change lands

bench: $(VENV)/.installed-bench ## the speed claims, measured side by side
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove the environment and what was built; data, shards and runs stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
