# Two commands do everything on a fresh Debian-like machine: `make run` and `make test`.
.PHONY: run test lint types pytest fmt bench servers clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && { echo $$p; break; }; done)
ARGS ?=

run: $(VENV)/.installed
	$(BIN)/twistd -n --pidfile= hypercache node $(ARGS)

test: lint types pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

pytest: $(VENV)/.installed-dev servers
	$(BIN)/pytest $(ARGS)

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev servers
	$(BIN)/python -m benchmarks $(ARGS)

$(VENV)/bin/python:
ifeq ($(PYTHON),)
	@echo "HyperCache needs Python 3.11 or newer; none of python3, python3.13, python3.12, python3.11 is." >&2; exit 1
endif
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || ./tools/apt-install python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

# What the tests need beyond pip; where it cannot be installed, just the tests that need it are skipped, with that reason.
servers:
	@command -v redis-server >/dev/null 2>&1 || ./tools/apt-install redis-server || true
	@command -v redis-benchmark >/dev/null 2>&1 || ./tools/apt-install redis-tools || true

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
