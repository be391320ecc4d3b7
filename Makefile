# `make` alone lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.ready-run
DEV    := $(VENV)/.ready-dev
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCK   := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes \
          --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
GENERATOR := tests/acceptance/python_client/requirements
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.DEFAULT_GOAL := help
.PHONY: help run test coverage demo bench check stack soak proof docs pictures client-types lock audit clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	@echo "Making a virtual environment in $(VENV)."
	@$(PYTHON) -m venv $(VENV)

# What running needs. An environment that already has the tests' tools keeps them.
$(RUN): $(BIN)/python pyproject.toml requirements.lock requirements-build.lock
	@echo "Installing what the service needs to run (about 150 MB, once)."
	@$(PIP) install --quiet --require-hashes -r requirements.lock -r requirements-build.lock
	@$(PIP) install --quiet --no-build-isolation --no-deps -e .
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "Installing what tests, checks and documentation need (about 550 MB more, once)."
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

.env:
	cp .env.example .env

run: $(RUN) .env ## all set-up, then the service on its embedded defaults
	$(BIN)/python -m service serve --fake-inngest

test: $(DEV) ## all set-up, then every test; in CI with its coverage
ifdef CI
	$(MAKE) coverage
else
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
endif

coverage: $(DEV) ## every test; fails when they reach less than the floor of service/
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

demo: $(RUN) ## half a minute of trouble in the terminal; ends with the count of lost events
	$(BIN)/python -m service demo

bench: $(DEV) ## measure the service beside what it replaces (a few minutes)
	$(BIN)/python -m bench

check: $(DEV) ## lint, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MKDOCS) build --strict
	$(BIN)/python -m pytest -q tests/integration/test_documentation.py

stack: $(DEV) ## the container stack, built, started and tried (about 10 minutes; needs Docker, or root on Debian)
	$(BIN)/python -m tests.stack

soak: $(DEV) ## longer trials under faults and kills (about 15 minutes); prints what was lost
	$(BIN)/python -m pytest -m soak -s -q

proof: $(DEV) ## power cuts at 5,000 moments, 100 simulated histories, planted bugs (about 15 minutes)
	POWER_CUT_STATES=5000 SIMULATED_HISTORIES=100 $(BIN)/python -m pytest -q -s \
		tests/acceptance/test_power_cuts.py tests/acceptance/test_simulation.py

docs: $(DEV) ## the documentation, at http://127.0.0.1:8000
	$(MKDOCS) serve

pictures: $(DEV) ## the pictures of the operators' page in the documentation (needs Chromium)
	$(BIN)/python -m tests.support.operator_pictures

client-types: $(DEV) ## the TypeScript client's types, from the API's description (needs Node)
	$(BIN)/python -m tests.support.api_description
	cd clients/typescript && npm ci --no-audit --no-fund --silent && npm run --silent types

lock: $(DEV) ## resolve the dependencies again into the lock files
	$(LOCK) --extra otel -o requirements.lock pyproject.toml
	$(LOCK) --all-extras -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(LOCK) --all-build-deps --only-build-deps -c requirements-dev.lock -o requirements-build.lock pyproject.toml
	$(LOCK) -o $(GENERATOR).lock $(GENERATOR).in

audit: $(DEV) ## ask PyPI whether a locked version has a known vulnerability
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-dev.lock
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r $(GENERATOR).lock

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* dist site
