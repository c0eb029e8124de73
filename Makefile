PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test lint

venv: .venv/.ready

.venv/.ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[dev]
	touch $@

demo: venv
	$(BIN)/cgrnn demo -o demo

test: venv lint
	$(BIN)/pytest tests cgrnn samplers evaluation data_prep

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
