# Everything runs in .venv, which the first command builds from constraints.txt (names, versions, hashes).
PYTHON ?= python3
BIN := .venv/bin
DEMO_DIR ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint slow bench clean

help:
	@echo "make demo   train, certify and attack the built-in digits detector; report at the end"
	@echo "make test   lint, types, tests, notebooks in smoke mode"
	@echo "make lint   ruff and mypy only"
	@echo "make slow   the tests that take minutes"
	@echo "make bench  ratios against the bare model"
	@echo "make clean  remove caches and the demo run (keeps .venv)"

.venv: .venv/installed

.venv/installed: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 tests
	DIFFAD_SMOKE=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 -p no:jaxtyping notebooks

slow: .venv
	$(BIN)/python -m pytest -m slow tests

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist $(DEMO_DIR)
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
