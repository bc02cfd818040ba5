# Every target sets up what it needs. PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
PROFILE ?= study
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SETTINGS := $(VENV)/share/jupyter/lab/settings

# One thread a process: tests run side by side, and sums do not depend on the number of cores.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Run a part of the tests and say how long it took.
part = @start=$$(date +%s); echo "== $(1)"; { $(2); } || exit 1; echo "== $(1): $$(($$(date +%s) - start)) s"

.DEFAULT_GOAL := help
.PHONY: help setup study smoke test test-all style types lab learner slides site serve bench gpu lint lock clean distclean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gcplib needs Python 3.11 or later; try make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the exact versions of requirements.lock (about 6 GB with torch) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

setup: $(READY)  ## install everything into .venv, at the locked versions

study: $(READY)  ## render the data, run every notebook, write the report (PROFILE=smoke|study|photographs|paper)
	@$(BIN)/python -m gcplib study --profile $(PROFILE)

smoke:  ## the same in a few minutes, on small data
	@$(MAKE) --no-print-directory study PROFILE=smoke

test: style  ## style, types, tests and every notebook once (8 minutes on two cores)
	$(call part,tests and notebooks,$(TESTS) -m "not slow" --cov --cov-report=term:skip-covered --cov-fail-under=90)

test-all: style  ## the same with the slow tests: whole studies, a cluster, and ranks that die
	$(call part,all tests and notebooks,$(TESTS))

style: $(READY)
	$(call part,style,$(BIN)/ruff check . && $(BIN)/ruff format --check .)

types: $(READY)  # one of the tests
	$(call part,types,$(BIN)/mypy)

lab: $(READY)  ## open your copies of the notebooks in JupyterLab, with tasks to write (learner/)
	@$(BIN)/python -m gcplib learner
	@# No question about news: it would ask every learner, and look for them on the network.
	@mkdir -p $(SETTINGS) && echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $(SETTINGS)/overrides.json
	@$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/learner/00_start_here.ipynb

learner: $(READY)  ## write these copies, and leave alone those that you have changed
	@$(BIN)/python -m gcplib learner

slides: $(READY)  ## write the notebooks as slides for a lecture, with the figures of make study (slides/)
	@$(BIN)/python -m gcplib slides

site: $(READY)  ## write the site of a study that has run, with the whole documentation (PROFILE=study)
	@$(BIN)/python -m gcplib report --profile $(PROFILE) --reference

PAGES = $${GCPLIB_RUNS:-runs}/$(PROFILE)/report
serve: $(READY)  ## show that site at http://localhost:8000
	@test -f $(PAGES)/index.html || { echo "There is no $(PAGES)/index.html; first: make site PROFILE=$(PROFILE)"; exit 1; }
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(PAGES) 8000

bench: $(READY)  ## time the pooling layers, their derivatives and exports side by side
	@$(BIN)/python -m gcplib bench layers
	@$(BIN)/python -m gcplib bench derivatives

gpu: $(READY)  ## test and time everything on an NVIDIA card (8 minutes)
	@$(BIN)/python -m gcplib bench gpu

lint: $(READY)  ## format and check the code and the notebooks
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/nbstripout --keep-id notebooks/*.ipynb

lock: $(READY)  ## renew requirements.lock from pyproject.toml and data/typefaces.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras \
	  --custom-compile-command "make lock" pyproject.toml data/typefaces.txt -o requirements.lock

clean:  ## remove runs, slides and cached data; copies of the notebooks stay
	@rm -rf runs slides data/cache

distclean: clean
	@rm -rf $(VENV)
