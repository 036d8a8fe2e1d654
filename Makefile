# make demo | test | check | bench | docs: each sets up .venv first; run again, the set-up is instant.
# The first Python found of python3.11 and python3 is used; another one: make test PYTHON=/path/to/python3.12
# PIP_ARGS goes to pip. On Linux without a GPU the index's torch carries CUDA; the small CPU build:
#   make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
# PINNED=1 takes no file whose hash is not in requirements/hashes.txt (Python 3.11, Linux x86_64, torch for the CPU).
PYTHON ?= $(firstword $(shell command -v python3.11 python3))
PIP_ARGS ?=
PINNED ?=
SECONDS ?= 60
BIN := .venv/bin
SETUP := .venv/.installed
VERL_BIN := .venv-verl/bin
VERL_SETUP := .venv-verl/.installed
VLLM_BIN := .venv-vllm/bin
VLLM_SETUP := .venv-vllm/.installed

.DEFAULT_GOAL := help
.PHONY: help setup hashes demo test test-fast test-verl test-vllm fuzz check bench docs
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: $(SETUP)  ## .venv with the exact versions of requirements/constraints.txt

$(SETUP): pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv .venv
ifeq ($(PINNED),)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c requirements/constraints.txt -e '.[train,report,dev]'
else
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --require-hashes -r requirements/hashes.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
endif
	@touch $@

hashes:  ## requirements/hashes.txt anew from constraints.txt, by uv; UV_ARGS says where torch for the CPU lies
	uv pip compile --quiet pyproject.toml --extra train --extra report --extra dev -c requirements/constraints.txt \
	    --python-version 3.11.5 --python-platform x86_64-manylinux_2_28 --no-annotate --custom-compile-command 'make hashes' \
	    --generate-hashes $(UV_ARGS) -o requirements/hashes.txt

demo: $(SETUP)  ## train a judge and two policies in the miniature, and show what happened
	$(BIN)/fapo demo

test: $(SETUP)  ## the test suite
	$(BIN)/python -m pytest -n 2

test-fast: $(SETUP)  ## the tests that take seconds: no training, no real servers, no browser
	$(BIN)/python -m pytest -n 2 -m 'not slow and not server and not browser'

$(VERL_SETUP): pyproject.toml requirements/verl-constraints.txt
	$(PYTHON) -m venv .venv-verl
	$(VERL_BIN)/python -m pip install --quiet $(PIP_ARGS) -c requirements/verl-constraints.txt torch
	$(VERL_BIN)/python -m pip install --quiet $(PIP_ARGS) -c requirements/verl-constraints.txt -e '.[verl]' pytest hypothesis
	@touch $@

test-verl: $(VERL_SETUP)  ## the tests of the verl engine, in .venv-verl (1.9 GB)
	$(VERL_BIN)/python -m pytest tests/verl tests/rewards/test_rewards.py tests/rewards/test_verify.py

$(VLLM_SETUP): requirements/vllm-constraints.txt tests/vllm_cpu/alias/pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet $(PIP_ARGS) --no-deps -r requirements/vllm-constraints.txt
	$(VLLM_BIN)/python -m pip install --quiet --no-deps --no-build-isolation ./tests/vllm_cpu/alias
	$(VLLM_BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

test-vllm: $(VLLM_SETUP)  ## the tests with vLLM on the CPU, alone and inside verl, in .venv-vllm (4.1 GB)
	$(VLLM_BIN)/python -m pytest tests/vllm_cpu tests/verl/test_vllm_rollout.py

fuzz: $(SETUP)  ## made-up text for the parsers, for SECONDS=60 (atheris, on Linux)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) 'atheris>=3.1,<4'
	$(BIN)/python tests/support/fuzz.py --seconds $(SECONDS)

check: $(SETUP)  ## format, lint, types, direction of imports, licences, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py
	@$(BIN)/pip-licenses --partial-match --fail-on 'GNU General Public;Affero;GPL-;GPLv;UNKNOWN;Proprietary;Other/' >/dev/null
	@pin=$$(sed -n 's|^\([^ =]*\)==\([0-9.]*\)$$|\1/\2|p' requirements/constraints.txt | head -n 1); \
	url=https://pypi.org/pypi/$$pin/json; \
	if $(BIN)/python -c "import urllib.request as r; r.urlopen('$$url', timeout=10)" 2>/dev/null; then \
	    $(BIN)/pip-audit --no-deps --disable-pip --progress-spinner off -r requirements/constraints.txt; \
	else echo 'vulnerabilities: NOT CHECKED, '$$url' does not answer'; fi

bench: $(SETUP)  ## the speed of the parts that must not hold a run back
	@set -e; for name in $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py)); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

docs: $(SETUP)  ## the documentation site, site/index.html; a broken link ends it
	$(BIN)/mkdocs build --strict
