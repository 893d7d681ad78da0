# make quickstart: train, measure and use a recogniser on this machine.  make test: what CI runs.  make test-slow: what takes minutes.
# All make .venv first; they need Python 3.11 to 3.13 and make, nothing else.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
RUN := outputs/quickstart-$(shell date +%Y%m%d-%H%M%S)

.PHONY: quickstart install test test-slow

quickstart: $(VENV)/.train
	@echo "== Train only the projector, from random, between nano's frozen encoder and language model"
	$(BIN)/ta train --experiment quickstart --output-dir $(RUN)
	@echo "== Measure it on 150 sentences and voices that it never met, then the shipped nano beside it"
	$(BIN)/ta eval -m $(RUN)/best -d quickstart --normalizer basic
	$(BIN)/ta eval -m nano -d quickstart --normalizer basic
	@echo "== Use it"
	$(BIN)/ta transcribe -m $(RUN)/best tiny_audio/assets/clips

install: $(VENV)/.train

test: $(VENV)/.dev
	$(BIN)/ta dev check

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow -s

# A file in the environment says that these requirements are installed; it is made again when they change.
$(VENV)/.train $(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[$(@:$(VENV)/.%=%)]"
	touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Error: no Python 3.11 to 3.13 found; install one, or: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
