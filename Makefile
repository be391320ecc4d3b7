# `make` alone lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check bench soak demo lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $(READY)

.env:
	cp .env.example .env

run: $(READY) .env ## all set-up, then the service on its embedded defaults
	$(BIN)/python -m service serve

demo: $(READY) ## half a minute of trouble in the terminal; ends with the count of lost events
	$(BIN)/python -m service demo

test: $(READY) ## all set-up, then every test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

soak: $(READY) ## longer trials under faults and kills (about 8 minutes); prints what was lost
	$(BIN)/python -m pytest -m soak -s -q

check: $(READY) ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## measure the service beside what it replaces (a few minutes)
	$(BIN)/python -m tests.bench

lock: ## resolve the dependencies anew into requirements.lock
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --all-extras -o requirements.lock pyproject.toml

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
