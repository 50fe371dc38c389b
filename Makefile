# make run    train the quickstart (the first call sets everything up)
# make test   lint, type-check, size report, tests; the first call installs the peers that tests compare with
# make bench  install the peers and run the benchmarks
# make long   the long form of the tests
# make clean  remove what the commands above made, .venv included
#
# Needs Python 3.11 to 3.13 and make. PYTHON=... picks the interpreter of a new .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FIND_PYTHON := for p in python3.11 python3.12 python3.13 python3 /usr/bin/python3.11; do \
	"$$p" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { command -v "$$p"; break; }; done || true
PYTHON ?= $(shell $(FIND_PYTHON))
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The checkout itself is put on the path: an import finds the same files whether or not the current directory is the checkout.
CHECKOUT := --no-build-isolation --config-settings editable_mode=compat --editable

# What tests compare with, and skip where it is absent.
TEST_PEERS := rocksdict fbgemm-gpu-cpu torchrec tensordict torchmetrics lightning-utilities pyre-extensions typing-inspect \
	mypy-extensions iopath portalocker pyvers orjson cloudpickle tqdm

.PHONY: help run test lint types size tests bench long clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: $(VENV)/.installed
	$(PY) -m pipeline run configs/quickstart.yaml run.dir=runs/quickstart --overwrite

# Types are one thread's work, and so is to compile the kernels: side by side.
test: lint size
	@$(MAKE) --no-print-directory --jobs=2 types $(VENV)/.kernels
	@$(MAKE) --no-print-directory tests

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.installed
	$(PY) -m mypy

size: $(VENV)/.installed
	$(PY) -m tools.size_report

# Two at once: a test mostly waits, for a process it started or for a disk. A file's tests stay together.
tests: $(VENV)/.peers
	$(PY) -m pytest --numprocesses=2 --dist=loadfile

bench: $(VENV)/.bench
	$(PY) -m pipeline bench

long: $(VENV)/.peers
	$(PY) -m pytest -m long

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with venv was found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(PY)
	@echo "installing the tested versions into $(VENV); the first time takes some minutes"
	$(INSTALL) setuptools
	$(INSTALL) $(CHECKOUT) '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	@echo "installing the peers that the benchmarks compare with"
	$(INSTALL) $(CHECKOUT) '.[bench]'
	@touch $@

# Without what they ask for themselves: TorchRec wants a torch built for GPUs.
$(VENV)/.peers: $(VENV)/.installed
	@echo "installing the peers that tests compare with"
	$(INSTALL) --no-deps $(TEST_PEERS)
	@touch $@

# A short run through every tier: what it compiles is kept in __pycache__.
$(VENV)/.kernels: $(VENV)/.installed $(shell grep --recursive --files-with-matches --include='*.py' numba cuda pipeline)
	@echo "compiling the kernels"
	@$(PY) -m pipeline run quickstart run.steps=20 run.dir=runs/kernels --overwrite store.l1_rows=8000 store.ssd={} store.dram_bytes=1MB >/dev/null
	@rm -r runs/kernels
	@touch $@
