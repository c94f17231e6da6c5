PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

# Train a compact DETR on drawn balloons; BALLOON_DIR=path or DATA=real takes the photographs.
demo: .venv/installed
	@BALLOON_DIR='$(BALLOON_DIR)' DATA='$(DATA)' $(BIN)/python tools/demo.py

test: .venv/installed
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed; make PYTHON=python3.12")'
	@echo "Installing into .venv: torch and its libraries are 5 GB, this takes a few minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info outputs datasets/balloon_drawn
