# Python 3.11 to 3.13, git and make are all that this needs. `make` alone lists the targets.

PYTHON ?= python3 python3.13 python3.12 python3.11
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 8 ? 8 : n)))
VENV := .venv
RUN := $(VENV)/bin/python -m
PINS := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help quickstart install test lint format types tests audit wheel clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.installed ## set up, fine-tune the embedded model, choose step and strength, show it all
	$(RUN) svdtrain fit config=style_lora trainer.keep_adapters=true
	$(RUN) svdtrain choose "$$(ls -td runs/style_lora/*/ | head -n 1)" clips=6 sigmas=0.5,5,50 steps=6 copies_of=24 strengths=0.75,1,1.25

install: $(VENV)/.installed-dev ## set up for work on svdtrain itself

test: lint types tests ## all that must pass before a change lands

lint: $(VENV)/.installed-dev ## style and formatting, changing nothing
	$(RUN) ruff check
	$(RUN) ruff format --check

format: $(VENV)/.installed-dev ## mend what lint can mend
	$(RUN) ruff check --fix
	$(RUN) ruff format

types: $(VENV)/.installed-dev ## the type checker
	$(RUN) pyright

tests: $(VENV)/.installed-dev ## the tests alone, in JOBS processes: as many as there are cores, 2 to 8
	OMP_NUM_THREADS=1 $(RUN) pytest -n $(JOBS) --dist worksteal

audit: $(VENV)/.installed-dev ## known vulnerabilities of what is pinned, where the database can be reached
	$(RUN) scripts.audit

wheel: $(VENV)/.installed-dev ## dist/svdtrain-*.whl
	$(RUN) build --wheel --no-isolation

clean: ## remove .venv, caches and built files; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache

# The environment is made once, and again only when what it depends on has changed.
$(VENV)/bin/python:
	@for python in $(PYTHON); do \
	    if $$python -c '$(SUPPORTED)' 2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; \
	echo "error: no Python 3.11 to 3.13 with its venv module found (tried: $(PYTHON))" >&2; \
	echo "hint: install one (on Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PINS) $(RUN) pip install -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PINS) $(RUN) pip install -e '.[dev]'
	@touch $@
