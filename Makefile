# make demo   open napari with a sample image, segmented (without a display: writes the labels and a picture)
# make test   everything that CI runs: style, types, architecture, manifest, the gate of speed, tests
# Both do all the set-up on a machine that has Python 3.11+ and pip; make help lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint format gate tests bench soak docs clean system-libraries constraints

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Without a display, Linux gets a virtual one.
ifeq ($(shell uname)$(DISPLAY),Linux)
ON_SCREEN := xvfb-run -a -s "-screen 0 1600x1000x24"
endif

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make lint   the checks alone       make tests   pytest alone (ARGS='-k tiling')"
	@echo "make gate   speed and exactness beside a peer, a minute: fails below the ratios that hold on any machine"
	@echo "make format rewrites the style     make bench   speed and quality beside a peer"
	@echo "make soak   five minutes of simulated use in the real window: memory, errors, threads (ARGS='60 100' for an hour)"
	@echo "make docs   the site, into build/site"
	@echo "make clean  removes the virtual environment and all caches"

demo: $(INSTALLED) system-libraries
	@$(BIN)/napari-unet demo

# pytest comes last: its summary is the last line.
test: lint gate tests

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/npe2 validate src/napari_unet/napari.yaml

gate: $(INSTALLED)
	@$(BIN)/python -m benchmarks.speed --gate

tests: $(INSTALLED) system-libraries
	@$(ON_SCREEN) $(BIN)/python -m pytest $(ARGS)

format: $(INSTALLED)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(INSTALLED) system-libraries
	@$(ON_SCREEN) $(BIN)/python -m benchmarks soak $(or $(ARGS),5 20)

# The site, into build/site; index.html opens without a server.
docs: $(INSTALLED)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@$(BIN)/mkdocs build --strict

system-libraries:
	@.ci/system-libraries

# The versions that are known to work together. CONTRIBUTING.md says when to run it.
constraints: $(INSTALLED)
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } >constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian's own Python comes without venv; root on such a machine gets it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("napari-unet needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say make PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[all,bench,test]'
	@touch $@
