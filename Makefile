# The way in: `make demo` and `make test` work on any machine with Python ≥ 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# leaves the machine's other core to itself when there are many; tests start processes of their own
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-all test-oldest test-oldest-export lint types check bench docs dist clean
# where `make test-oldest` keeps the oldest releases of every dependency that pyproject.toml allows
OLDEST := .venv-oldest

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

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

test-oldest: install-dev ## the tests on the oldest releases that pyproject.toml allows, and on Python 3.11
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv venv --quiet --allow-existing --python 3.11 $(OLDEST)
	$(BIN)/uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra ray pyproject.toml -o $(OLDEST)/oldest.txt
	$(BIN)/uv pip install --quiet --python $(OLDEST) -r $(OLDEST)/oldest.txt pytest pytest-timeout pytest-xdist spikingjelly
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -n $(TEST_WORKERS) -m 'not slow'

test-oldest-export: install-dev ## the tests of export on the oldest releases that its extra allows
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv venv --quiet --allow-existing --python 3.11 $(OLDEST)-export
	$(BIN)/uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra export pyproject.toml -o $(OLDEST)-export/oldest.txt
	$(BIN)/uv pip install --quiet --python $(OLDEST)-export -r $(OLDEST)-export/oldest.txt pytest pytest-timeout pytest-xdist nirtorch snntorch spikingjelly
	PYTHONPATH=$(CURDIR) $(OLDEST)-export/bin/python -m pytest -n $(TEST_WORKERS) -m 'not slow' tests/zoo/export tests/cli/test_export.py

lint: install-dev ## ruff: style, docstrings, common errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## mypy, strict, on respike/
	$(BIN)/mypy

check: lint types test ## what has to pass before a change lands

bench: $(VENV)/.installed-bench ## the speed claims, measured side by side, ten minutes; figures in bench/
	$(BIN)/python benchmarks/run_all.py --out bench

docs: install-dev ## the documentation as a site under site/; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: install-dev ## wheel and sdist under dist/
	$(BIN)/python -m build

clean: ## remove the environment and what was built; data, shards and runs stay
	rm -rf $(VENV) $(OLDEST) $(OLDEST)-export site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
