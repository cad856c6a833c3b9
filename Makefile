# `make demo` and `make test` work on any machine with Python ≥ 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# processes that run tests; tests start more processes, so this is less than the number of cores
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-all test-oldest test-oldest-export lint types check bench docs dist clean
# environment of `make test-oldest`, with the oldest release of every dependency that pyproject.toml allows
OLDEST := .venv-oldest

help: ## list the targets
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

install: $(VENV)/.installed ## create a virtual environment with the exact versions in constraints.txt
install-dev: $(VENV)/.installed-dev ## the same, with the tools for tests and checks

demo: install ## make videos, prepare, train, score; the result is demo/report.html
	$(BIN)/respike demo

test: install-dev ## run the tests except the slow ones; takes minutes
	$(BIN)/pytest -n $(TEST_WORKERS) -m 'not slow'

test-all: install-dev ## run all tests, with the slow ones and the demo
	$(BIN)/pytest -n $(TEST_WORKERS)

test-oldest: install-dev ## run the tests with Python 3.11 and the oldest releases that pyproject.toml allows
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv venv --quiet --allow-existing --python 3.11 $(OLDEST)
	$(BIN)/uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra ray pyproject.toml -o $(OLDEST)/oldest.txt
	$(BIN)/uv pip install --quiet --python $(OLDEST) -r $(OLDEST)/oldest.txt pytest pytest-timeout pytest-xdist spikingjelly
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -n $(TEST_WORKERS) -m 'not slow'

test-oldest-export: install-dev ## run the tests of export with the oldest releases that its extra allows
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv venv --quiet --allow-existing --python 3.11 $(OLDEST)-export
	$(BIN)/uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra export pyproject.toml -o $(OLDEST)-export/oldest.txt
	$(BIN)/uv pip install --quiet --python $(OLDEST)-export -r $(OLDEST)-export/oldest.txt pytest pytest-timeout pytest-xdist nirtorch snntorch spikingjelly
	PYTHONPATH=$(CURDIR) $(OLDEST)-export/bin/python -m pytest -n $(TEST_WORKERS) -m 'not slow' tests/zoo/export tests/cli/test_export.py

lint: install-dev ## run ruff: style, docstrings, common errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## run mypy (strict) on respike/
	$(BIN)/mypy

check: lint types test ## run everything that must pass before a change is merged

bench: $(VENV)/.installed-bench ## run all benchmarks; takes ten minutes, results in bench/
	$(BIN)/python benchmarks/run_all.py --out bench

docs: install-dev ## build the documentation in site/; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: install-dev ## build wheel and sdist in dist/
	$(BIN)/python -m build

clean: ## delete the environments and all build results; data, shards and runs stay
	rm -rf $(VENV) $(OLDEST) $(OLDEST)-export site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
