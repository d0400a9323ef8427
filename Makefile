# make run        environment, the smoke suite on built-in data, its board
# make test       environment, style, types, tests (minutes)
# make test-full  the long tests too; a summary goes to tests/full-log.md
# make check      style and types only
# make gpu        on a machine with a GPU: the gate of the kernels, then every bench, into results/kernels/
#
# PYTHON: the interpreter that makes the environment; VENV: where it lies; JOBS: processes that run tests.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Bytecode is kept whatever the caller's environment says: tests start hundreds of processes, and each would compile anew.
KEEP_BYTECODE := PYTHONDONTWRITEBYTECODE=

.PHONY: run test test-full check gpu clean

run: $(VENV)/.installed
	$(BIN)/gkdbench run smoke

test: check
	$(ONE_THREAD) $(KEEP_BYTECODE) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-full: check
	$(ONE_THREAD) $(KEEP_BYTECODE) $(BIN)/python tests/full_log.py -n $(JOBS) --dist loadfile -m "full or not full"

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# PYTHON's own torch decides about CUDA: the pinned CPU build of `make test` would see no device.
gpu:
	$(PYTHON) tests/gpu_bench.py --out results/kernels

# Stamps: a second call installs nothing, a change of the requirements installs again.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV)
