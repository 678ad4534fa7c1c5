# Two commands do everything from a bare machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What is imported is compiled once, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo demo-train test tests lint fast docs bench install clean

help:
	@echo "make demo    install, then run all eleven stages on the embedded phantom cohort"
	@echo "make demo-train   the same in studies/demo-train, with an autoencoder trained on the spot"
	@echo "make test    install, then lint, types, import rule and every test"
	@echo "make fast    the fast tests alone"
	@echo "make lint    ruff, mypy, import rule"
	@echo "make docs    the documentation as a site, docs/_build/html; warnings are errors"
	@echo "make bench   measure the table of targets (10 minutes; the demo's own row: make bench WHAT=demo)"
	@echo "make clean   remove the environment and everything the demo made"

demo: install
	dvc repro
	@pipeline info reports

# The demo with its own autoencoder, minutes of training instead of the bundled one.
demo-train: install
	pipeline init studies/demo-train --force --set autoencoder.source=train
	cd studies/demo-train && dvc repro && pipeline info reports

# Side by side: mypy has a core, and tests that wait for other processes leave the rest.
test: install
	@$(MAKE) --no-print-directory -j2 lint tests

tests: install
	pytest -n 2 --dist worksteal

fast: install
	pytest -n 2 --dist loadfile -m "not slow"

lint: install
	ruff check .
	ruff format --check .
	mypy
	lint-imports

docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -E -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: install
	pipeline bench --readme README.md $(if $(WHAT),--what $(WHAT))

# A half-made or broken environment is rebuilt: the mark is only trusted while the command runs.
install:
	@$(BIN)/pipeline --help >/dev/null 2>&1 && $(BIN)/dvc --version >/dev/null 2>&1 || rm -f $(READY)
	@$(MAKE) --no-print-directory $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer with venv is needed; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@# The pip that comes with Python 3.11 takes twice as long to resolve.
	$(BIN)/python -m pip install --quiet pip==26.1.2
	$(BIN)/python -m pip install --quiet --no-compile -c requirements.lock -e '.[dev,docs]'
	@# ComBat alone: the figures of combatlearn need umap, seaborn and plotly, its ComBat does not.
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -c requirements.lock combatlearn
	@# On all cores, which pip does on one. Some packages carry files that are no Python 3.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib >/dev/null || true
	@touch $(READY)

clean:
	rm -rf $(VENV) data models reports docs/_build docs/reference dvc.lock .dvc/cache .dvc/tmp
