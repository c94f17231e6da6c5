PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --editable

.PHONY: demo test test-warnings lint audit clean

# Train a compact DETR on drawn balloons; BALLOON_DIR=path or DATA=real takes the photographs.
demo: .venv/installed
	@BALLOON_DIR='$(BALLOON_DIR)' DATA='$(DATA)' $(BIN)/python tools/demo.py

test: .venv/test
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

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
