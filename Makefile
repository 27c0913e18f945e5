# Everything a fresh machine with Python 3.11+ and make needs. `make` alone lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Nothing is resolved at install time: the requirements files name every package with its hashes.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
SOURCES := $(shell find errors index embedding jobs server client cli proto examples/podcasts -name '*.py' -o -name '*.proto' -o -name 'feed.xml' 2>/dev/null)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Earshot needs Python 3.11 or newer; make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv

.venv/runtime.stamp: requirements.txt | .venv/bin/python
	@echo "installing the pinned packages into .venv (once)"
	$(PIP_INSTALL) --require-hashes --requirement requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt | .venv/runtime.stamp
	@echo "installing the pinned packages for development into .venv (once)"
	$(PIP_INSTALL) --require-hashes --requirement requirements-dev.txt
	@touch $@

# The strict editable install links files one by one, so a new file needs it again (a second).
FILES := .venv/files.list
.venv/project.stamp: pyproject.toml $(FILES) | .venv/runtime.stamp
	$(PIP_INSTALL) --no-build-isolation --config-settings editable_mode=strict --editable .
	@touch $@

.PHONY: force
$(FILES): force | .venv/bin/python
	@printf '%s\n' $(SOURCES) | sort > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

.PHONY: install
install: .venv/project.stamp  ## set up .venv, nothing else

.PHONY: demo
demo: install  ## sample podcasts in, neighbours out; ONCE=1 stops after the examples, FEED=... takes your own
	@$(BIN)/earshot demo $(if $(ONCE),--once) $(if $(FEED),--feed '$(FEED)')

.PHONY: lint
lint: .venv/dev.stamp install  ## ruff, mypy strict, the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addprefix -p earshot.,errors index embedding jobs client server cli)
	$(BIN)/mypy tests benchmarks
	$(BIN)/lint-imports

.PHONY: test
test: lint  ## lint and all tests but the slow ones
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

# PyTorch and sentence-transformers are the reference that our ONNX graph is compared with; nothing else uses them.
.venv-torch/stamp:
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check sentence-transformers triton
	@touch $@

.PHONY: test-slow
test-slow: .venv/dev.stamp install .venv-torch/stamp  ## the slow tests: faithfulness to PyTorch, judged queries
	EARSHOT_TORCH_PYTHON=$(CURDIR)/.venv-torch/bin/python $(BIN)/python -m pytest -m slow --timeout 1800 -s

# faiss-gpu and faiss-cpu are one module, so what needs a GPU has an environment of its own.
.venv-gpu/stamp: requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.txt
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements-dev.txt
	.venv-gpu/bin/python -m pip uninstall --quiet --yes faiss-cpu
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check 'faiss-gpu==1.15.*' torch==2.13.0 sentence-transformers
	@touch $@

.PHONY: install-gpu
install-gpu: .venv-gpu/stamp
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=strict --editable .

.PHONY: test-gpu
test-gpu: install-gpu  ## what needs an NVIDIA GPU, in an environment of its own; skipped, with a reason, without one
	.venv-gpu/bin/python -m pytest tests/gpu -m gpu --timeout 1800 -v

.PHONY: bench-gpu
bench-gpu: install-gpu  ## the benchmark of the GPU engine: ARGS="--quick" and others are passed on
	.venv-gpu/bin/python -m benchmarks.gpu $(ARGS)

.PHONY: proto
proto: .venv/dev.stamp install  ## generate the stubs from proto/
	$(BIN)/python proto/generate.py

.PHONY: requirements
requirements: .venv/dev.stamp  ## compile the pinned requirements from pyproject.toml
	sh requirements.sh

.PHONY: clean
clean:  ## remove what make made, the demo's data included
	rm -rf .venv .venv-torch .venv-gpu build dist *.egg-info .earshot .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
