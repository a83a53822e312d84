# make study   set up and run the classic study, ending in study/report.html
# make test    set up and run all tests
# make help    the other targets

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
STUDY_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help study test soak lint format types docs bench serve clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

study: $(VENV)/study  ## set up, train the classic study, write study/report.html
	$(BIN)/rowwise study --out study $(STUDY_FLAGS)

test: $(VENV)/test  ## set up, run all tests
	$(BIN)/python -m pytest -q -m "not slow"

soak: $(VENV)/test  ## the long tests: many kills, many fuzz cases
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/test  ## check style
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs

format: $(VENV)/test  ## mend style
	$(BIN)/ruff check --fix src tests benchmarks examples docs
	$(BIN)/ruff format src tests benchmarks examples docs

types: $(VENV)/test  ## check types
	$(BIN)/mypy

docs: $(VENV)/test  ## rewrite the generated parts of the documentation
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_experiments.py
	$(BIN)/python docs/make_readme.py

bench: $(VENV)/bench  ## measure against Keras on this machine (an hour)
	$(BIN)/python benchmarks/engine_speed.py --keras-python $(VENV)/bench/bin/python \
	  --out benchmarks/results/engine_speed.json
	$(VENV)/bench/bin/python benchmarks/keras_study.py --out benchmarks/results/keras_study.json

serve:  ## show the study's folder at http://127.0.0.1:8000/report.html
	@test -f study/report.html || { echo "there is no study/report.html yet: run make study first"; exit 1; }
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory study 8000

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "rowwise needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); install it, or name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) lacks venv or ensurepip, which the set-up needs; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras, so that a second run of make is quick.
$(VENV)/study: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[study,torch]'
	@touch $@

$(VENV)/test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/study

# TensorFlow and PyTorch bring different builds of the same libraries: an environment of its own.
$(VENV)/bench: $(VENV)/study
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check 'tensorflow-cpu==2.21.0' 'keras==3.15.0'
	@touch $@
