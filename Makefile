# Every target does all of its own set-up: Python >= 3.11, make and a package index are enough.
# `make demo ARGS=--once`, `make test`, `make help`. PYTHON=… chooses the interpreter, ARGS=… is passed on.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check compiled soak bench lock clean FORCE

# Where it is set, each of the tests' many processes would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
# The locks are complete, so nothing is resolved; byte code is compiled on first import, and only what is imported.
INSTALL := $(PIP) install --no-deps --no-compile
TYPED := eventbus handlers consumers gateway benchmarks tests pytest_eventbus.py

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 \2/p' $(MAKEFILE_LIST) | while read -r make target text; do \
		printf '  %s %-6s %s\n' "$$make" "$$target" "$$text"; done

demo: $(VENV)/.runtime ## the whole application in one process, each step shown; ARGS=--once ends when all were seen
	@$(BIN)/eventbus demo $(ARGS)

# Most tests wait for servers, leases or due times: eight processes keep two cores busy. Whoever is done early takes from
# the others: the long ones would keep one of them for a minute behind all.
test: $(VENV)/.dev ## the whole proof: check, then every test on real servers; ARGS=… goes to pytest
	@$(MAKE) --no-print-directory -j 2 check compiled
	$(BIN)/python -m pytest -n 8 --dist worksteal $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

# Beside the type checker, which keeps one core busy: else each of the eight would compile all tests by itself, at once.
# What does not even compile is told by the tests' own run.
compiled: $(VENV)/.dev
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true

# Hours. Each line can be run alone, with options of its own.
soak: $(VENV)/.dev ## what is long by nature: time on a busy machine, stalls, silences, lost logs, properties, simulation, promises
	$(BIN)/python -m tests.clocks $(ARGS)
	$(BIN)/python -m tests.stalls -q
	$(BIN)/python -m tests.soak.freezes --lease 10 --silences 3 4.5 6 9 12 --times 50 --lanes 6
	$(BIN)/python -m tests.soak.logs
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest tests/properties --timeout 3600
	$(BIN)/python -m tests.properties.limits_grid valkey
	$(BIN)/python -m tests.simulation --schedules 100000 --processes 2
	$(BIN)/python -m benchmarks.promises
	$(BIN)/python -m benchmarks.regress

bench: $(VENV)/.dev ## this project, its peers and the raw client, measured and drawn; ARGS=--quick takes 2 minutes
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## all that make and the tests left behind; the demo's data in .eventbus/ stays
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Hashes of every platform's files, for every Python that the project supports; no index and no path is written.
COMPILE := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
lock: ## newest versions that pyproject.toml allows into requirements/*.lock; needs uv
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 1; }
	$(COMPILE) --group pip --output-file requirements/pip.lock
	$(COMPILE) pyproject.toml --all-extras --group build --output-file requirements/runtime.lock
	$(COMPILE) pyproject.toml --all-extras --group dev --constraint requirements/runtime.lock --output-file requirements/dev.lock

# A virtual environment holds absolute paths: one that was copied or moved here, or whose interpreter is gone, is made anew.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/.made 2>/dev/null),$(CURDIR))
$(VENV)/.made: FORCE
endif
$(VENV)/.made: requirements/pip.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'No Python >= 3.11 found. Install one, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) --require-hashes -r requirements/pip.lock
	@echo '$(CURDIR)' >$@

$(VENV)/.runtime: $(VENV)/.made requirements/runtime.lock pyproject.toml
	@echo 'Installing requirements/runtime.lock'
	@$(INSTALL) --require-hashes -r requirements/runtime.lock
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

# dev.lock holds runtime.lock, so this is the other stamp as well.
$(VENV)/.dev: $(VENV)/.made requirements/dev.lock requirements/runtime.lock pyproject.toml
	@echo 'Installing requirements/dev.lock'
	@$(INSTALL) --require-hashes -r requirements/dev.lock
	@$(INSTALL) --no-build-isolation --editable .
	@touch $(VENV)/.runtime $@
