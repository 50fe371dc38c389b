# make run    train the quickstart (the first call sets everything up)
# make test   lint, type-check, size report, tests
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

.PHONY: help run test lint types size tests bench long clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: $(VENV)/.installed
	$(PY) -m pipeline run configs/quickstart.yaml run.dir=runs/quickstart --overwrite

test: lint types size tests

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.installed
	$(PY) -m mypy

size: $(VENV)/.installed
	$(PY) -m tools.size_report

tests: $(VENV)/.installed
	$(PY) -m pytest

bench: $(VENV)/.bench
	$(PY) -m pipeline bench

long: $(VENV)/.installed
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
