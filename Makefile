# Needs make and Python 3.10 to 3.12, nothing else. An active environment (VIRTUAL_ENV or CONDA_PREFIX) is used, and
# only what it lacks is installed into it; otherwise .venv is made here and reused.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint docs bench release clean

ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
ENV := $(or $(ACTIVE),.venv)
PY := $(ENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# torch brings setuptools, so that the build needs no network; an older torch may not.
INSTALL_PACKAGE = $(PIP) install --quiet --no-deps --no-build-isolation --editable . 2>/dev/null \
	|| $(PIP) install --quiet --no-deps --editable .

# One file per state of the requirements: a change of their content, not of their date, installs anew.
key = $(shell cat $(1) /dev/null | cksum | cut -d ' ' -f 1)
READY := $(ENV)/.omh_mmseg-$(call key,requirements/onedl.txt requirements/test.txt pyproject.toml setup.py)
LINT_READY := $(READY)-lint-$(call key,requirements/lint.txt)
DOCS_READY := $(READY)-docs-$(call key,requirements/docs.txt)
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))
STACK := mmengine mmcv mmseg mmpretrain ot rich torch torchvision
COMPLETE := import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, sys.argv[1:]))

# A file's tests stay together: they share what is dear to make. In pytest's own order the longest files, which run
# whole commands and have few tests, come early; xdist would start them last and leave one process idle.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

help:
	@echo 'make demo       train STEGO and STEGO + OMH on the demo scenes, print the scores, draw the hierarchy'
	@echo 'make test       the tests without the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make lint       ruff, mypy and the one-way imports'
	@echo 'make docs       the docs site in build/docs, its warnings and links; ARGS=--external follows links elsewhere, too'
	@echo 'make bench      the benchmarks, about 40 minutes; ARGS=--quick takes ten'
	@echo 'make release    build wheel and sdist into dist and check them as installed; ARGS=--reuse downloads less'
	@echo 'make clean      remove .venv and caches; work_dirs stays'

# Threads that wait asleep lose little on an idle machine and stay usable on a busy one, where spinning ones take the
# processor from their own partners.
demo: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(PY) tools/demo.py $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest $(PARALLEL) -m 'not slow' tests $(ARGS)

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest $(PARALLEL) -m slow tests $(ARGS)

lint: $(LINT_READY)
	$(PY) -m ruff check .
	$(PY) -m mypy omh_mmseg
	$(ENV)/bin/lint-imports --no-logo

docs: $(DOCS_READY)
	OMP_NUM_THREADS=1 $(PY) .dev_scripts/build_docs.py $(ARGS)

bench: $(READY)
	$(PY) benchmarks/run_all.py $(ARGS)

release: $(READY)
	$(PY) .dev_scripts/release.py $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './work_dirs/*' -prune -exec rm -rf {} +

ifeq ($(ACTIVE),)

# .installing marks an install under way and becomes the finished mark; found at the start, it tells of an interrupted
# install, whose environment is emptied first.
$(READY):
	@set -e; found=; \
	for candidate in $(PYTHON) python3.11 python3.12 python3.10 python3 python; do \
		if "$$candidate" -c '$(SUPPORTED)' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'make: no Python 3.10, 3.11 or 3.12 with venv and ensurepip found (Debian, Ubuntu: apt-get install' \
			'python3-venv); name one with: make PYTHON=/path/to/python' >&2; exit 1; \
	fi; \
	clear=; if [ -e $(ENV)/.installing ]; then clear=--clear; fi; \
	echo "installing into $(ENV) with $$found: about two minutes and 1.7 GB the first time"; \
	"$$found" -m venv $$clear $(ENV); rm -f $(ENV)/.omh_mmseg-*; touch $(ENV)/.installing; \
	$(PIP) install --quiet -r requirements/onedl.txt -r requirements/test.txt; \
	$(INSTALL_PACKAGE); \
	mv $(ENV)/.installing $@

else

$(READY):
	@set -e; \
	if ! $(PY) -c '$(SUPPORTED)'; then \
		echo 'make: the active environment $(ENV) has no Python 3.10, 3.11 or 3.12 with venv and ensurepip;' \
			'deactivate it to have make create .venv' >&2; exit 1; \
	fi; \
	$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip; \
	if ! $(PY) -c '$(COMPLETE)' $(STACK); then \
		if $(PIP) show --quiet mmengine mmcv mmcv-lite mmsegmentation mmpretrain 2>/dev/null; then \
			echo 'make: the active environment $(ENV) holds a part of the original OpenMMLab packages; complete it' \
				'with: pip install -r requirements/openmmlab.txt' >&2; exit 1; \
		fi; \
		echo 'installing what is missing into the active environment $(ENV)'; \
		$(PIP) install --quiet -r requirements/onedl.txt; \
	fi; \
	$(PY) -c 'import pytest, hypothesis, xdist, pandas, tabulate, nbclient, ipykernel' 2>/dev/null || $(PIP) install --quiet -r requirements/test.txt; \
	$(PIP) show --quiet omh-mmseg 2>/dev/null || { $(INSTALL_PACKAGE); }; \
	touch $@

endif

$(LINT_READY): $(READY)
	@set -e; \
	{ $(PY) -m ruff --version && $(PY) -m mypy --version && $(ENV)/bin/lint-imports --version; } >/dev/null 2>&1 \
		|| $(PIP) install --quiet -r requirements/lint.txt; \
	touch $@

$(DOCS_READY): $(READY)
	@set -e; \
	$(PY) -c 'import sphinx, myst_parser, furo' 2>/dev/null || $(PIP) install --quiet -r requirements/docs.txt; \
	touch $@
