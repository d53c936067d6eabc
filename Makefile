# Everything runs in .venv, which the first command builds from constraints.txt (names, versions, hashes).
PYTHON ?= python3
BIN := .venv/bin
DEMO_DIR ?= runs/demo
DEMO_OPTIONS := --limit 20
DEMO_RADII := 0,0.1,0.25

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
	@echo "installing PyTorch and the rest into .venv: several GB, some minutes" >&2
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Digits, class 8 normal: train, certify at the chosen sigma and at .25, attack the same smoothed score, report.
# The checks of an attack run on pixel_nn; on the network they would take longer than everything else.
demo: .venv
	rm -rf $(DEMO_DIR)
	$(BIN)/accelerate launch train_ddpm.py --config configs/digits.yaml --output_dir $(DEMO_DIR)/detector
	$(BIN)/certify --detector $(DEMO_DIR)/detector $(DEMO_OPTIONS) --radii $(DEMO_RADII) --output_dir $(DEMO_DIR)/run
	$(BIN)/diffad attack --detector $(DEMO_DIR)/detector $(DEMO_OPTIONS) --curve $(DEMO_RADII) --steps 20 --eot 8 \
		--checks none --output_dir $(DEMO_DIR)/run
	$(BIN)/diffad attack --detector pixel_nn --data digits --normal_class 8 $(DEMO_OPTIONS) --curve $(DEMO_RADII) \
		--output_dir $(DEMO_DIR)/run
	$(BIN)/certify --detector $(DEMO_DIR)/detector --sigma 0.25 $(DEMO_OPTIONS) --no-baselines \
		--radii $(DEMO_RADII) --output_dir $(DEMO_DIR)/sigma-0.25
	$(BIN)/diffad report $(DEMO_DIR)/run
	$(BIN)/diffad compare $(DEMO_DIR)/run $(DEMO_DIR)/sigma-0.25 --output_dir $(DEMO_DIR)/compare
	@echo "next: source .venv/bin/activate; docs/quickstart.md does the same with a folder of your own images" >&2

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread a process: two workers of two threads each would wait for one another on two cores, and the tiny networks of
# the notebooks gain nothing by a second one.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests
	OMP_NUM_THREADS=1 DIFFAD_SMOKE=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --timeout=900 notebooks

slow: .venv
	$(BIN)/python -m pytest -m slow tests

bench: .venv
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist $(DEMO_DIR)
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
