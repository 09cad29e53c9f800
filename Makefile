PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test lint bench readme clean

demo: $(STAMP)
	$(BIN)/tinypress demo --out runs/demo

test: lint
	$(BIN)/pytest -n auto --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check src tests bench docs
	$(BIN)/ruff format --check src tests bench docs
	$(BIN)/mypy

readme: demo
	$(BIN)/python docs/readme.py

bench: $(STAMP)
	$(BIN)/python -m bench

$(STAMP): pyproject.toml requirements/constraints.txt requirements/data.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/data.txt
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs
