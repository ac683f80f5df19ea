# The active virtual environment (venv, or a conda environment other than base), else .venv, which is made here.
CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
VENV := $(or $(VIRTUAL_ENV),$(CONDA),$(CURDIR)/.venv)
PYTHON := $(VENV)/bin/python
# Says that this clone is installed in that environment; another clone's install removes it.
CLONE := $(subst /,_,$(CURDIR))
BASE := $(VENV)/.ssl_zoo-base$(CLONE)
DEV := $(VENV)/.ssl_zoo-dev$(CLONE)
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test test-all lint

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

train: $(BASE)  ## install, then train the first job on one CPU core; ARGS="method=byol" trains that instead, on all
	@$(if $(ARGS),,OMP_NUM_THREADS=1) $(PYTHON) train.py $(or $(ARGS),experiment=digits_quick)

test: $(DEV)  ## install, then run the fast tests, two at a time with one thread each
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n 2 $(ARGS)

test-all: $(DEV)  ## install, then run all tests, the slow ones too
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -e ".[notebooks]"
	@$(PYTHON) -m pytest $(ARGS)

lint: $(DEV)  ## check style and types
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy

$(BASE): EXTRA :=
$(DEV): EXTRA := [dev]

$(BASE) $(DEV): setup.cfg pyproject.toml | $(PYTHON)
	@echo "Installing ssl_zoo$(EXTRA) into $(VENV) (minutes the first time: PyTorch is large)"
	@rm -f $(VENV)/.ssl_zoo-*
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -e ".$(EXTRA)"
	@touch $(BASE) $(if $(EXTRA),$(DEV))

$(PYTHON):
	@python3 -m venv $(VENV)
