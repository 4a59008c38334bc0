# make demo | test | lint | format: each first sets up a virtual environment, once, in $(VENV).
#
#   PYTHON=/path/to/python3.11   the Python to make it with; by default the newest of 3.12, 3.11 and 3.10 that runs
#   VENV=.venv                   folder of the environment
#   PYTEST_ARGS="-k targets"     more arguments for pytest
#   DEMO=runs/shapes_tiny        run directory of the demo

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
DEMO ?= runs/shapes_tiny
DEMO_FLAGS ?=

RUN := $(VENV)/bin/python
SOLO := $(RUN) -m solo_dist
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt
REQUIREMENTS := setup.cfg setup.py pyproject.toml constraints.txt
CODE := solo_dist configs tools launch tests setup.py

.DEFAULT_GOAL := help
.PHONY: help demo test lint format clean

help:
	@echo "make demo     makes a small data set, trains on it, evaluates and draws: $(DEMO)"
	@echo "make test     runs the tests"
	@echo "make lint     checks format, style and types"
	@echo "make format   formats the code"
	@echo "make clean    removes $(VENV) and caches; data and runs stay"

$(RUN):
	@tools/make_venv.sh "$(VENV)" "$(PYTHON)"

# The stamps say that the environment has what the requirements asked for when they last changed.
$(VENV)/.stamp_demo: $(RUN) $(REQUIREMENTS)
	@echo "Installing solo_dist and TensorFlow into $(VENV) (2 to 4 minutes) ..."
	$(INSTALL) -e .
	@touch $@

$(VENV)/.stamp_dev: $(RUN) $(REQUIREMENTS)
	@echo "Installing solo_dist, TensorFlow and the tools for development into $(VENV) (2 to 4 minutes) ..."
	$(INSTALL) -e '.[test,dev]'
	@touch $@

# If the images are missing, the trainer first makes and shards them. After an interruption the same command continues.
# DEMO_FLAGS="--config.train.steps=200" for a quick look.
demo: $(VENV)/.stamp_demo
	$(SOLO) train --config=shapes_tiny --workdir=$(DEMO) --strategy=one_device $(DEMO_FLAGS)
	$(SOLO) evaluate --workdir=$(DEMO) --report
	$(SOLO) predict --workdir=$(DEMO) --images='data/shapes_tiny/validation/images/00000[0-7].jpg' \
	    --output=$(DEMO)/overlays
	@echo
	@echo "Overlays:     $(DEMO)/overlays"
	@echo "Report:       $(DEMO)/report/index.html"
	@echo "Metrics:      $(DEMO)/metrics.jsonl and $(DEMO)/eval"
	@echo "TensorBoard:  $(VENV)/bin/tensorboard --logdir $(DEMO)/tensorboard"
	@echo "Own images:   $(VENV)/bin/solo-dist predict --workdir=$(DEMO) --images='photos/*.jpg' --output=overlays"

test: $(VENV)/.stamp_dev
	$(RUN) -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.stamp_dev
	$(RUN) -m ruff format --check $(CODE)
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m mypy

format: $(VENV)/.stamp_dev
	$(RUN) -m ruff format $(CODE)
	$(RUN) -m ruff check --fix $(CODE)

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache *.egg-info
