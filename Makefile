# make demo | test | lint | format: each first sets up a virtual environment, once, in $(VENV).
#
#   STACK=2.17                   or newest: which TensorFlow; by default 2.17, if there is a Python from 3.10 to 3.12
#   PYTHON=/path/to/python3.11   the Python to make it with; by default the newest that fits and runs
#   VENV=.venv                   folder of the environment; .venv-2.17 and .venv-newest if STACK is given
#   PYTEST_ARGS="-k targets"     more arguments for pytest
#   DEMO=runs/shapes_tiny        run directory of the demo

STACK ?=
VENV ?= .venv$(if $(STACK),-$(STACK))
PYTHON ?=
PYTEST_ARGS ?=
DEMO ?= runs/shapes_tiny
DEMO_FLAGS ?=

RUN := $(VENV)/bin/python
SOLO := $(RUN) -m solo_dist
# constraints.txt for the newest stack, constraints-2.17.txt for the other.
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check \
    -c "constraints$$(sed -n 's/^2/-2/p' $(VENV)/stack).txt"
REQUIREMENTS := setup.cfg setup.py pyproject.toml constraints.txt constraints-2.17.txt
CODE := solo_dist configs tools launch tests setup.py

.DEFAULT_GOAL := help
.PHONY: help demo test lint format clean

help:
	@echo "make demo     makes a small data set, trains on it, evaluates and draws: $(DEMO)"
	@echo "make test     runs the tests"
	@echo "make lint     checks format, style and types"
	@echo "make format   formats the code"
	@echo "make clean    removes $(VENV) and caches; data and runs stay"

HAS := $(shell cat $(VENV)/stack 2>/dev/null)
ifneq ($(and $(STACK),$(HAS),$(filter-out $(STACK),$(HAS))),)
$(error $(VENV) has the stack $(HAS), not $(STACK): give another folder, VENV=..., or delete this one)
endif

$(VENV)/stack:
	@tools/make_venv.sh "$(VENV)" "$(PYTHON)" "$(STACK)"

# The stamps say that the environment has what the requirements asked for when they last changed.
$(VENV)/.stamp_demo: $(VENV)/stack $(REQUIREMENTS)
	@echo "Installing solo_dist and TensorFlow into $(VENV) (2 to 4 minutes) ..."
	$(INSTALL) -e .
	@touch $@

$(VENV)/.stamp_dev: $(VENV)/stack $(REQUIREMENTS)
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
