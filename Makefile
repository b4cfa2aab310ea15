# Two words do it: `make up` and `make test`. Everything runs from .venv; nothing needs root or Docker.
# Paths are relative throughout, so the checkout may lie in a folder with spaces in its name.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV

DATA ?= incident
PYTEST_ARGS ?=
PY := .venv/bin/python
CODE := plugins dags tests benchmarks tools

.PHONY: help setup up start serve down test faults lint format docs bench bench-peers lock clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## the locked environment in .venv; seconds when it is there already
	@bash tools/environment

up: setup ## data, history, Airflow and its last three nights; DATA=simulated needs no download, DATA=all is all five
	@$(PY) -m tiltyard.cli up --data "$(DATA)"

start: setup ## Airflow for the sources and models that are there; NIGHT=2016-05-02 lets that night run
	@$(PY) -m tiltyard.cli start $(if $(NIGHT),--night "$(NIGHT)")

serve: setup ## predictions over HTTP on 127.0.0.1:8090; AS_OF=latest for data of the past
	@$(PY) -m tiltyard.cli serve $(if $(AS_OF),--as-of "$(AS_OF)")

down: ## stop Airflow and PostgreSQL; nothing is lost
	@if [ -x $(PY) ]; then $(PY) -m tiltyard.cli down; else echo "Nothing is installed here, so nothing runs."; fi

test: lint ## lint and every test; PYTEST_ARGS="-k gate" runs some
	@$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

faults: setup ## the programme of faults: texts, nights, bits, kills, full disks, forgeries, callers; SHORT=1 for fewer, PARTS="kills forged"
	@$(PY) benchmarks/programme.py $(if $(SHORT),--short) $(if $(PARTS),--only $(PARTS)) $(FAULTS_ARGS)

lint: setup ## ruff, mypy, import-linter, sqlfluff
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)
	@$(PY) -m mypy
	@$(PY) -c "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
	@$(PY) -m sqlfluff lint --disable-progress-bar dbt

format: setup ## mend what lint can mend
	@$(PY) -m ruff check --fix $(CODE)
	@$(PY) -m ruff format $(CODE)
	@$(PY) -m sqlfluff fix --disable-progress-bar dbt

docs: setup ## write the generated pages of docs/reference/ again
	@$(PY) tools/reference.py

bench: setup ## every benchmark, each with what it is compared with
	@failed=""; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(PY) "$$file" || failed="$$failed $$file"; done; \
		[ -z "$$failed" ] || { echo "These benchmarks failed:$$failed" >&2; exit 1; }

bench-peers: setup ## the point-in-time join beside Feast's; installs Feast into .venv-peers the first time
	@bash tools/peers
	@$(PY) benchmarks/point_in_time.py --peers .venv-peers/bin/python

lock: ## pyproject.toml -> requirements.txt, with hashes; needs uv
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv" >&2; exit 2; }
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		pyproject.toml --group build --group lint --group test --output-file requirements.txt

clean: down ## remove .venv and caches; .tiltyard (data, history, database) stays
	@rm -rf .venv .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis dbt/target dbt/logs plugins/tiltyard.egg-info
	@find plugins dags tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
