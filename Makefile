PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --editable
TEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
# Deprecations are errors, in every process, except what is inside libraries or meant: pycocotools 2.0.11 uses numpy as
# before its version 2, and Jupyter's kernel the event loop as before Python 3.12, which also advises against forking a
# process that has threads; the workers that load and check images use none of them.
WARNINGS := error::DeprecationWarning,error::PendingDeprecationWarning,error::FutureWarning,$\
            ignore:__array__ implementation:DeprecationWarning,$\
            ignore:There is no current event loop:DeprecationWarning,ignore:This process:DeprecationWarning

.PHONY: demo test test-warnings lint audit clean

# Train a compact DETR on drawn balloons; BALLOON_DIR=path or DATA=real takes the photographs.
demo: .venv/installed
	@BALLOON_DIR='$(BALLOON_DIR)' DATA='$(DATA)' $(BIN)/python tools/demo.py

test: .venv/test
	$(TEST)

# What libraries will remove or change is an error.
test-warnings: .venv/test
	PYTHONWARNINGS='$(WARNINGS)' $(TEST)

# Style, docstrings, spelling, the order of imports between folders, types.
lint: .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/mypy

# Known mistakes in the code, and known vulnerabilities of what is installed, which the package index is asked for.
audit: .venv/lint
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive d2_detr tools
	$(BIN)/python -m pip freeze --exclude-editable > .venv/frozen.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement .venv/frozen.txt

.venv/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed; make PYTHON=python3.12")'
	@echo "Installing into .venv: torch and its libraries are 5 GB, this takes a few minutes the first time."
	$(PYTHON) -m venv .venv
	$(INSTALL) .
	@touch $@

.venv/test .venv/lint: .venv/%: .venv/installed
	$(INSTALL) '.[$*]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
