# The commands that people and CI both use; `make help` lists them. All they need is CPython 3.11 to 3.13 with venv, and a
# package registry that pip can reach. Everything is installed into .venv; the project itself runs from the tree.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --no-input
.PHONY: help setup cuda demo test check chaos soak bench gpu quality clean distclean
help:  ## this list
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: $(VENV)/.ready  ## install the pinned packages into .venv; PYTHON=/path/to/python3 chooses the interpreter

cuda: $(VENV)/.ready-cuda  ## on a machine with an NVIDIA GPU: cuBLAS 12 too, which the speech model needs there

demo: $(VENV)/.ready  ## index a sample video and search it; VIDEO=path takes your own, QUERY="words" what to look for
	@$(RUN) -m benches.demo

test: $(VENV)/.ready-dev  ## the tests, three files at a time (JOBS=1: one); ARGS="-k store" hands options to pytest
	@$(RUN) -m pytest -q -n $(or $(JOBS),3) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.ready-dev  ## ruff and mypy --strict
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

chaos: $(VENV)/.ready-dev  ## kill processes at random, then every other disturbance, and compare what is stored; KILLS=200, SEED=n, REAL=1
	@$(RUN) -m tests.chaos.chaos --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED)) $(if $(REAL),--real) $(ARGS)

soak: $(VENV)/.ready-dev  ## an hour of short videos: does memory rise? MINUTES=60
	@$(RUN) -m tests.chaos.soak --minutes $(or $(MINUTES),60) $(ARGS)

bench: $(VENV)/.ready-bench  ## measure this machine, a quarter of an hour: tables and plots in bench-results; ARGS="decode store": some alone
	@status=0; $(RUN) -m benches all --results bench-results $(ARGS) || status=$$?; \
		$(RUN) -m benches render bench-results; exit $$status

gpu: $(VENV)/.ready-cuda $(VENV)/.ready-bench  ## measure a CUDA card, nine minutes; ARGS="--large"
	@$(RUN) -m benches gpu $(ARGS)
	@$(RUN) -m benches render

quality: $(VENV)/.ready-quality  ## how right it is, with the models at hand, on labelled media; ARGS="/path/to/media --json FILE"
	@$(RUN) -m benches.quality $(ARGS)

clean:  ## remove what demo, test, check and bench made
	@rm -rf demo bench-results build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove .venv too
	@rm -rf $(VENV)

# What the user typed, letter by letter: make would take dollar signs for its own, and the shell quotes and spaces.
export DEMO_VIDEO := $(value VIDEO)
export DEMO_QUERY := $(value QUERY)

# --- setup ------------------------------------------------------------------------------------------------------------
# The stamps are written last: a setup that was cut off is done again, and so is one whose pins have changed.

CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
CAN_VENV := import ensurepip, venv
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
LIST := import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*(project | project["optional-dependencies"])[sys.argv[1]], sep="\n")

fitting = $(strip $(foreach python,$(CANDIDATES),$(shell $(python) -c '$(FITS)' 2>/dev/null && echo $(python))))
usable = $(firstword $(foreach python,$(fitting),$(shell $(python) -c '$(CAN_VENV)' 2>/dev/null && echo $(python))))
version = $(shell $(firstword $(fitting)) -c '$(VERSION)')
without_venv = Python $(version) lacks venv; install it: apt-get install python$(version)-venv
without_python = CPython 3.11 to 3.13 is needed; install it (apt-get install python3 python3-venv) or name it (PYTHON=/path/to/python3)
explain = $(error $(if $(fitting),$(without_venv),$(without_python)))

define install # $(1): dependencies, or the group
	@$(RUN) -c '$(FITS)' 2>/dev/null && $(PIP) --version >/dev/null 2>&1 || \
		{ echo "Creating $(VENV) with $(or $(usable),$(explain))"; $(usable) -m venv --clear $(VENV); }
	@$(RUN) -c '$(LIST)' $(1) >$(VENV)/$(1).txt
	@echo "Installing $(2) into $(VENV); see $(VENV)/$(1).log"
	@$(PIP) install --requirement $(VENV)/$(1).txt --constraint constraints.txt 2>&1 | tee $(VENV)/$(1).log | \
		sed -un 's/^ *\(Downloading .*[0-9]\{3,\}\(\.[0-9]*\)\? MB)\).*/  \1/p; s/^Installing .*/  Unpacking/p; /^ERROR/p'
	@touch $@
endef

$(VENV)/.ready: pyproject.toml constraints.txt
	$(call install,dependencies,the packages (some minutes the first time: torch is large))

$(VENV)/.ready-dev: $(VENV)/.ready
	$(call install,dev,ruff$(comma) mypy and pytest)

$(VENV)/.ready-cuda: $(VENV)/.ready
	$(call install,cuda,cuBLAS 12)

$(VENV)/.ready-bench: $(VENV)/.ready
	$(call install,bench,what measures and draws)

$(VENV)/.ready-quality: $(VENV)/.ready
	$(call install,quality,what scores the results)

comma := ,
