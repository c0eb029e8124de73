PYTHON ?= python3
BIN := .venv/bin
JSB ?= JSB_Chorales.mat

.PHONY: venv demo test lint benchmark-models benchmark-speed

venv: .venv/.ready

.venv/.ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[dev]
	touch $@

demo: venv
	$(BIN)/cgrnn demo -o demo

# All models on the chorales of the standard set, ten minutes each: some three hours.
benchmark-models: venv
	$(BIN)/python benchmarks/models.py $(JSB) -o compared

# Speed and memory against references of the same run: RUN a trained CGRNN, MIDI a folder of files.
benchmark-speed: venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[benchmarks]
	$(BIN)/python benchmarks/speed.py $(if $(RUN),--run $(RUN)) $(if $(MIDI),--midi $(MIDI))

test: venv lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile tests cgrnn samplers evaluation data_prep

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
