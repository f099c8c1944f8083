# The two commands are `make reproduce` and `make test`; both build the environment first, once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SCALE  ?= tiny
DATA   ?= rendered
ARGS   ?=

.PHONY: reproduce test lab bench docs export clean env help

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/:/'

reproduce: env   ## the paper's tables and figures; SCALE=tiny|small|paper DATA=rendered|folder ARGS='--experiments all'
	$(BIN)/p2net reproduce --scale $(SCALE) --data $(DATA) $(ARGS)

test: env        ## every notebook with its stored outputs, and pytest
	$(BIN)/python tests/run.py

lab: env         ## the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

bench: env       ## speeds beside other libraries, as ratios of one run, on a quiet machine
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]' && $(BIN)/python benchmarks/speed.py

docs: env        ## the notebooks as a site, _docs/html/index.html, with every link checked
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]' && $(BIN)/python docs/build.py

export: env      ## after editing notebooks or tests: package, stored outputs, README, tests/README
	$(BIN)/nbdev_export && $(BIN)/python tests/notebooks.py links && $(BIN)/python tests/notebooks.py run && $(BIN)/nbdev_clean && $(BIN)/python tests/notebooks.py readme && $(BIN)/python tests/situations.py

clean:           ## environment, work folders and caches of this checkout
	rm -rf $(VENV) runs _proc _docs build *.egg-info .pytest_cache .ruff_cache

env: $(VENV)/.built
$(VENV)/.built: settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "make: Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
