# make demo   set up, then play the bundled Pong (a window, or demo.gif where there is no display)
# make test   set up, then lint, types, tests
# make minetest   installs the system packages of the Minetest environments (Debian, Ubuntu and relatives)
# make world  record, train and pack the bundled Pong again, or WORLD=minerl (hours)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint types tests bench minetest world clean

demo: $(VENV)/.demo
	$(BIN)/neuralsim demo

test: lint types tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/pytest

bench: $(VENV)/.dev
	$(BIN)/pytest tests/benchmarks -s --benchmark-quiet

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

minetest:
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		minetest minetest-data xvfb libgl1-mesa-dri gcc libc6-dev libgl-dev libx11-dev

WORLD ?= pong

world: $(VENV)/.dev
	$(BIN)/python neuralsim/worlds/$(WORLD)/recipe.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -q -c constraints.txt torch numpy
	$(PIP) install -q -c constraints.txt -e ".[play,video]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -q -c constraints.txt torch numpy
	$(PIP) install -q -c constraints.txt -e ".[all,dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
