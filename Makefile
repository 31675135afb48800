# Every target does its whole set-up (a venv, pip) and is safe to repeat.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check bench bench-all clean

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := serve,ui,bench,dev
# A shim can exist for a Python that does not (pyenv), so each candidate is run, not just found.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	>/dev/null 2>&1 && echo $$p && break; done)
# Tests check every exported GLB with it where node is installed; without npm they say so and skip.
GLTF_VALIDATOR := gltf-validator@2.0.0-dev.3.10
# And the compressed copies with Draco's own decoder.
DRACO := draco3d@1.5.7
# The browser tests run it on the web interface.
AXE := axe-core@4.14.1
STAMP := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt Makefile | cksum | tr ' ' -)

help:
	@echo "make setup | demo | test | test-long | check | bench | bench-all | clean"

setup: $(STAMP)
	@:

$(STAMP):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV); }
	@echo "installing dependencies (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --retries 10 \
		--editable ".[$(EXTRAS)]" --constraint constraints.txt
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix build/node \
		$(GLTF_VALIDATOR) $(DRACO) $(AXE) || \
		echo "npm lacks one of $(GLTF_VALIDATOR) $(DRACO) $(AXE): tests will be skipped" >&2
	@rm -f $(VENV)/.ready-*
	@touch $@

demo: setup
	@$(BIN)/python -m deployments.demo

check: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports >$(VENV)/lint-imports.log 2>&1 || { cat $(VENV)/lint-imports.log; exit 1; }
	@echo "ruff, mypy and the import layers are clean"

test: check
	@$(BIN)/python -m pytest

# What takes minutes: hundreds of jobs through every fault, a benchmark suite, the logs of a request.
test-long: setup
	@$(BIN)/python -m pytest -m long

# The smoke suite with the bundled checkpoints on Ray, recorded in MLflow (docs/benchmarks.md).
bench: setup
	@$(BIN)/python -m benchmarks.run_suite --models triposr --suite smoke --checkpoint nano

bench-all: setup
	@for script in benchmarks/[a-z]*.py; do \
		name=$$(basename $$script .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
