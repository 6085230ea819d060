# make: set everything up in .venv and regenerate every result.  make test: the tests.  make docs: the documentation.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: all test lab docs pins
all: .venv/ready data/demo
	@dvc repro networks prepare
	@python -m rsnlib train
	@dvc repro
	@echo 'Done: open file://$(CURDIR)/results/index.html'

test: .venv/ready
	ruff check .
	ruff format --check .
	pytest -n 2

lab: .venv/ready
	jupyter lab notebooks

docs: .venv/docs
	sphinx-build --fail-on-warning --keep-going --quiet --conf-dir docs . work/docs
	@echo 'Done: open file://$(CURDIR)/work/docs/docs/index.html'

.venv/docs: .venv/ready requirements-docs.txt
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet --requirement requirements-docs.txt
	@touch $@

# the environment is complete when .venv/ready is younger than what it was made from
.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo 'Setting up .venv: a few minutes, about 2 GB'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet --requirement requirements.txt
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

data/demo: | .venv/ready
	@echo 'Drawing the people of the demo'
	@python -m rsnlib demo $@

# requirements.txt and requirements-docs.txt anew, from the ranges of pyproject.toml
pins:
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install --quiet 'torch==2.13.0' --editable '.[test]'
	.venv-pins/bin/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+cpu$$//' | grep -Ev '^(nvidia|triton)' > requirements.txt
	.venv-pins/bin/python -m pip install --quiet --editable '.[docs]'
	.venv-pins/bin/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+cpu$$//' | grep -Ev '^(nvidia|triton)' | grep -vxFf requirements.txt > requirements-docs.txt
	rm -rf .venv-pins
