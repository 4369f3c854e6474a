# make demo | make test | make ui
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 3000
GROUPS_ALL := slow daemon browser dbt postgres ray
# Two processes: tests of these groups use one thread each, and share nothing but the machine.
TWO := -n 2 --dist loadfile
FAST := not slow and not daemon and not browser and not dbt and not postgres and not ray

.PHONY: demo test test-all ui lint format types install clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo      set up, then two real tables from source to published segments"
	@echo "make ui        Dagster on http://127.0.0.1:$(PORT) (PORT=...)"
	@echo "make test      the tests, offline"
	@echo "make test-all  the tests with the groups: $(GROUPS_ALL)"
	@echo "make lint types format"

# Packages are installed once, and again when what they are changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Got $$($(PYTHON) --version), expected Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed

# dbt asks for an older pathspec than mypy, so it lives in an environment of its own.
$(VENV)-dbt/.installed: tests/dbt/requirements.txt
	@test -x $(VENV)-dbt/bin/python || $(PYTHON) -m venv $(VENV)-dbt
	$(VENV)-dbt/bin/python -m pip install --quiet --disable-pip-version-check -r tests/dbt/requirements.txt
	@touch $@

.PHONY: install-dbt
install-dbt: $(VENV)-dbt/.installed

demo: install
	@$(BIN)/erasmo demo

ui: install
	@$(BIN)/erasmo ui --port $(PORT)

test: install
	$(BIN)/python -m pytest $(TWO) -m "$(FAST)"

test-all: install install-dbt
	@for group in fast $(GROUPS_ALL); do \
	  marks=$$group; at_once=; case $$group in fast) marks="$(FAST)"; at_once="$(TWO)";; postgres) at_once="$(TWO)";; esac; \
	  start=$$(date +%s); $(BIN)/python -m pytest $$at_once -m "$$marks" || exit 1; \
	  echo "group $$group: $$(( $$(date +%s) - start )) s"; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/sqlfluff lint --disable-progress-bar erasmo_dagster/template/dbt_like_sql

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-dbt build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
