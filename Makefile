# `make` alone lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.ready-run
DEV    := $(VENV)/.ready-dev
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCK   := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes \
          --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
MUTMUT := $(VENV)/.ready-mutmut
TESTED := tests/acceptance/python_client/requirements tests/integration/own_transaction/requirements tests/support/mutants
# Three test processes a core: many tests wait for other processes. Those that are slow work more.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count() * 3))')
coverage: WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() * 3 // 2))')
# Files in their order: the longest first, then those of tests/acceptance, and at last tests/unit.
BESIDE  = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# Modules are compiled once, not by each process, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE :=
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.DEFAULT_GOAL := help
.PHONY: help run test coverage shuffle nextjs demo bench house check stack soak proof mutants planted docs pictures lock audit clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	@echo "Making a virtual environment in $(VENV)."
	@$(PYTHON) -m venv $(VENV)

# What running needs. An environment that already has the tests' tools keeps them.
# --no-deps: a lock is whole, and pip would replace a pinned package that another wants with an extra.
$(RUN): $(BIN)/python pyproject.toml requirements.lock requirements-build.lock
	@echo "Installing what the service needs to run (about 150 MB, once)."
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock -r requirements-build.lock
	@$(PIP) install --quiet --no-build-isolation --no-deps -e .
	@$(PIP) check --quiet
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "Installing what tests, checks and documentation need (about 660 MB more, once)."
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements-dev.lock
	@$(PIP) check --quiet
	@touch $@

$(MUTMUT): $(DEV) tests/support/mutants.lock
	@$(PIP) install --quiet --require-hashes --no-deps -r tests/support/mutants.lock
	@touch $@

.env:
	cp .env.example .env

run: $(RUN) .env ## all set-up, then the service on SQLite, with a fake Inngest if no dev server answers
	$(BIN)/python -m service serve --fake-inngest

test: $(DEV) ## all set-up, then the tests (3 minutes on 2 cores); in CI the slow ones too
ifdef CI
	$(MAKE) coverage
else
	$(BIN)/python -m pytest $(BESIDE)
endif

coverage: $(DEV) ## the slow tests too; fails below 95 % of the branches of service/
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not soak" $(BESIDE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

RUNS ?= 20
SEED ?= $(shell date +%s)

shuffle: $(DEV) ## the tests RUNS times in random orders; each run prints its SEED, which gives it again
	@first=$(SEED); for seed in $$(seq $$first $$((first + $(RUNS) - 1))); do \
		$(BIN)/python -m pytest -q -p tests.support.shuffle --shuffle $$seed $(BESIDE) || failed=1; \
	done; test -z "$$failed"

nextjs: $(RUN) ## the Next.js example with its service, at http://localhost:3000 (needs Node)
	cd clients/typescript && npm ci --silent
	cd examples/nextjs && npm ci --silent && PYTHON=$(abspath $(BIN)/python) npm --silent start

demo: $(RUN) ## half a minute of trouble in the terminal; ends with the count of lost events
	$(BIN)/python -m service demo

bench: $(DEV) ## compare the service with what it replaces (13 minutes)
	$(BIN)/python -m bench

house: $(DEV) ## the size of the code, and the way of a post through it
	$(BIN)/python -m bench.house

check: $(DEV) ## lint, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MKDOCS) build --strict
	$(BIN)/python -m pytest -q tests/integration/test_documentation.py

IMAGES ?= stand-ins

stack: $(DEV) ## the container stack, built, started and tried (10 minutes; needs Docker, or root on Debian; IMAGES=real pulls)
	$(BIN)/python -m tests.stack $(IMAGES)

soak: $(DEV) ## longer trials under faults and kills (about 15 minutes); prints what was lost
	$(BIN)/python -m pytest -m soak -s -q

proof: export PROOF_TABLE := $(CURDIR)/.proof-table
proof: export JOURNAL_LOSSES ?= 50
POWER_CUT_STATES    ?= 135000
DEVICE_FAULTS_EVERY ?= 2
SIMULATED_HISTORIES ?= 100
JOURNAL_HISTORIES   ?= 1000
OPERATOR_HISTORIES  ?= 60
TRIAL := $(BIN)/python -m tests.support

# Each part runs whatever the others found; what one has found is in the exit code and the table.
proof: $(MUTMUT) ## 100,000 states after power cuts (15 minutes), faults of a device, histories, operators' views, mutants
	@rm -f $(PROOF_TABLE)
	@$(TRIAL).power_cuts $(POWER_CUT_STATES) || failed=1; \
	$(TRIAL).power_cuts.device_faults $(DEVICE_FAULTS_EVERY) || failed=1; \
	$(TRIAL).simulation 1 $(SIMULATED_HISTORIES) 1 || failed=1; \
	$(TRIAL).journal.history 0 $(JOURNAL_HISTORIES) || failed=1; \
	$(TRIAL).linearizability $(OPERATOR_HISTORIES) sqlite || failed=1; \
	$(TRIAL).linearizability $(OPERATOR_HISTORIES) postgresql || failed=1; \
	$(BIN)/python -m pytest -q -s -m "not soak" tests/acceptance/test_journal_losses.py || failed=1; \
	$(BIN)/python -m tests.planted --trials || failed=1; \
	$(TRIAL).mutants || failed=1; \
	$(TRIAL).proof_table; exit $${failed:-0}

mutants: $(MUTMUT) ## one small change at a time in the modules that judge answers and people; prints what no test noticed
	$(BIN)/python -m tests.support.mutants

planted: $(DEV) ## each bug of tests/planted in a copy of the code, judged by the tests near it; prints the survivors
	$(BIN)/python -m tests.planted

docs: $(DEV) ## the documentation, at http://127.0.0.1:8000
	$(MKDOCS) serve

pictures: $(DEV) ## the pictures of pages in the documentation (needs Chromium and Node)
	$(BIN)/python -m tests.support.pictures

lock: $(DEV) ## resolve the dependencies again into the lock files
	$(LOCK) --extra otel -o requirements.lock pyproject.toml
	$(LOCK) --all-extras -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(LOCK) --all-build-deps --only-build-deps -c requirements-dev.lock -o requirements-build.lock pyproject.toml
	$(foreach one,$(TESTED),$(LOCK) -o $(one).lock $(one).in &&) true

audit: $(DEV) ## ask PyPI whether a locked version has a known vulnerability
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-dev.lock
	$(foreach one,$(TESTED),$(BIN)/pip-audit --strict --disable-pip --require-hashes -r $(one).lock &&) true

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* dist site
