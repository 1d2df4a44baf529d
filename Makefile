# Needs Python 3.11 or later with pip, and make; everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TEST_PROCESSES ?= 3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: $(INSTALLED)  ## from nothing to a searchable lakehouse with the sample workspace in it
	@$(BIN)/loreline run-sample

demo-live: $(INSTALLED)  ## how soon an edit, a deletion, a closed issue and a revoked permission are true in search
	@$(BIN)/python -m benchmarks.demo_live

test: $(INSTALLED)  ## every test but the long rounds
	@$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder

test-fast: $(INSTALLED)  ## unit tests: no services, under a minute
	@$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadscope tests/unit

soak: $(INSTALLED)  ## the long rounds: kills at random moments, many times over
	@$(BIN)/pytest -m soak

lint: $(INSTALLED)  ## ruff, sqlfluff, and SQL that means the same on Spark
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@test ! -f .sqlfluff || $(BIN)/sqlfluff lint --nocolor --disable-progress-bar models macros tests
	@$(BIN)/python -m loreline.portable_sql

lock:  ## write requirements.lock anew, from pyproject.toml, in an environment made for it
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	echo "Resolving in $$folder …" && \
	$(PYTHON) -m venv "$$folder" && \
	"$$folder/bin/pip" install --quiet --disable-pip-version-check --upgrade pip setuptools && \
	"$$folder/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e '.[stack,dev]' && \
	"$$folder/bin/pip" freeze --all --exclude pip --exclude-editable \
		| sed 's/+[A-Za-z0-9.]*$$//' > requirements.lock && \
	wc -l requirements.lock

clean:  ## stop the stack and remove what was installed and built; the data stay
	@test ! -x $(BIN)/loreline || $(BIN)/loreline down
	@rm -rf .venv target logs *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing what requirements.lock names into .venv; minutes the first time …"
	@$(PYTHON) -m venv .venv
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: help run demo-live test test-fast soak lint lock clean
