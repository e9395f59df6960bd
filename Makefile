# `make` or `make help` says what there is. Nothing has to be installed by hand but Python 3.11 or newer, make and git.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
ARGS ?=

export PYTHON
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
export UV_LINK_MODE := copy
# Also where Python may not write it when it imports: a process that starts need not compile all it imports.
export UV_COMPILE_BYTECODE := 1
# The tests, too, are compiled once and not at each start of each process (`make clean` removes that).
unexport PYTHONDONTWRITEBYTECODE
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

# The wheel is built anew when any of these changes (a folder's time tells of files that went).
SOURCES := pyproject.toml uv.lock $(shell find src \( -name __pycache__ -prune \) -o \( -type f -o -type d \) -print 2>/dev/null)
# One process for each core, up to four, each with servers of its own; what belongs together stays together, and
# tests/order.py says what is begun first.
WORKERS := --numprocesses=auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder --max-worker-restart=0
SYNC := $(BIN)/uv sync --quiet --frozen --no-editable --all-extras --reinstall-package delimiter

.PHONY: help demo example test quick mutations interleavings soak lint format docs bench servers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## the main job on SQLite, from nothing, in a minute
	@$(BIN)/delimiter demo

example: $(VENV)/.dev ## the example service with workers that die, on SQLite (DATABASE_URL=postgresql+psycopg://…): Ctrl-C ends it
	$(BIN)/python -m examples.database_service --crash 0.02

test: $(VENV)/.dev ## every test, on the built wheel, on every store (PYTEST_ARGS="-k claim")
	@tools/install-servers || { status=$$?; if [ "$${CI:-}" = true ]; then exit $$status; fi; \
	  echo "*** the engines without a server will be SKIPPED; the end of the run names them ***"; }
	TMPDIR=$$(tools/test-folder) $(BIN)/pytest $(WORKERS) $(PYTEST_ARGS)

quick: $(VENV)/.dev ## most of what runs on SQLite and memory, without the command line and whole processes: under two minutes
	TMPDIR=$$(tools/test-folder) $(BIN)/pytest $(WORKERS) --stores=sqlite,memory -m "not slow" -k "not processes and not memory_engine_does" --ignore=tests/cli \
	  --ignore=docs/command-line.md $(PYTEST_ARGS)

mutations: $(VENV)/.dev ## takes out each guard in turn; the tests must notice (ARGS="--only counters-unlocked"): half an hour
	@tools/install-servers || echo "*** mutations on a database without a server are not shown ***"
	@PYTHONPATH=tests $(BIN)/python -m mutations $(ARGS)

interleavings: $(VENV)/.dev ## two operations at once in every order of their statements, on PostgreSQL and MariaDB (ARGS="--only sweep")
	@tools/install-servers
	@PYTHONPATH=tests:. $(BIN)/python -m interleavings $(ARGS)

soak: $(VENV)/.dev ## minutes of faults on each store, judged (ARGS="--store mariadb --minutes 10 --seed 7")
	@tools/install-servers || echo "*** stores without a server are left out ***"
	@PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy (strict) and the house's arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls tests
	PYTHONPATH=src $(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## ruff's formatter and safe fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## the documentation, to docs/_build/html
	$(BIN)/sphinx-build --quiet -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.dev ## every way to claim on every database and cluster, beside the goals, with charts: an hour and a half (ARGS=--quick)
	@tools/install-servers || echo "*** databases without a server are left out ***"
	$(BIN)/python benchmarks/databases.py $(ARGS)
	$(BIN)/python benchmarks/memory.py --json benchmarks/results/memory.json
	$(BIN)/python benchmarks/clusters.py --json benchmarks/results/clusters.json --chart docs/images/clusters.svg
	$(BIN)/python benchmarks/guards.py --chart docs/images/cost-of-a-guard.svg
	$(BIN)/python benchmarks/goals.py --page docs/benchmark-figures.md

servers: ## installs PostgreSQL, MariaDB with Galera, and ZooKeeper for the tests (root on Debian)
	@tools/install-servers

clean: ## removes everything that was made here
	rm -rf $(VENV) dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis delimiter-demo.db* database-service*.db*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -------------------------------------------------------------------------------------------------------
# .run: the library with its extras. .dev: the tools too. Both hold the built wheel, not the source tree.

$(VENV)/.uv-$(UV_VERSION): tools/make-venv
	@echo "setting up $(VENV)"
	@tools/make-venv $(VENV) $(UV_VERSION)
	@touch $@

$(VENV)/.run: $(VENV)/.uv-$(UV_VERSION) $(SOURCES)
	@$(SYNC) --inexact --no-default-groups
	@touch $@

$(VENV)/.dev: $(VENV)/.uv-$(UV_VERSION) $(SOURCES)
	@$(SYNC)
	@touch $@ $(VENV)/.run
