# make demo    install, train on handwritten digits, evaluate, predict     make lint    ruff, mypy
# make test    install what tests need and run them                        make bench   tables of docs/results.md
# make engine  compile native/ again after a change (test, lint and bench do so by themselves)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# What builds the package is installed first and kept, and so are the objects in build/: compiling again is quick.
BUILD := $(INSTALL) --no-build-isolation
TOOLS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
# Peers of the tests that ask for another build of torch than constraints.txt has: they work with this one.
PEERS := timm==1.0.31 torchvision==0.28.0
NATIVE := CMakeLists.txt $(shell find native -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt)

.PHONY: demo engine test lint bench clean

demo: $(VENV)/.train
	$(BIN)/python examples/digits.py

engine: $(VENV)/.train

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python bench/engine.py --write docs/results.md
	$(BIN)/python bench/scaling.py --write docs/results.md --plot docs/scaling.png
	$(BIN)/python bench/startup.py --write docs/results.md
	$(BIN)/python bench/file_to_label.py --write docs/results.md
	$(BIN)/python bench/tflite_parity.py
	$(BIN)/python bench/ablation.py

clean:
	rm -rf $(VENV) build runs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mobilenet needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "No virtual environment could be made: on Debian, apt-get install python3-venv"; exit 1; }

$(VENV)/.tools: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) and compiling the engine (some minutes the first time)"
	@$(BIN)/python -c '$(TOOLS)' > $@.txt
	$(INSTALL) --requirement $@.txt 'cmake>=3.18' 'ninja>=1.10'
	@touch $@

$(VENV)/.train: $(VENV)/.tools constraints.txt $(NATIVE)
	$(BUILD) --editable '.[train]'
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(BUILD) --editable '.[train,test]'
	$(INSTALL) --no-deps $(PEERS)
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BUILD) --editable '.[train,test,bench]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BUILD) --editable '.[train,test,lint]'
	@touch $@
