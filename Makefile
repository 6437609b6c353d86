# `make demo` and `make test` each do all they need on a machine with Python 3.11 or newer, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test browser lint reports bench torch clean

demo: $(VENV)/installed
	$(BIN)/gradproof check expressions/ols.toml
	$(BIN)/gradproof check expressions/

test: $(VENV)/installed browser
	$(BIN)/python -m pytest -n 2

# Pages are tested in a browser: installed where that may be done, else these tests are skipped, and say so.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { root=$$(test "$$(id -u)" = 0 || echo sudo -n); $$root apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends \
	    chromium fonts-dejavu-core >/dev/null; } || \
	  echo "no Chromium, and it cannot be installed here: the tests of pages are skipped"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The committed reports, written anew.
reports: $(VENV)/installed
	$(BIN)/gradproof report expressions/ --output reports/

bench: $(VENV)/installed
	$(BIN)/python benchmarks/corpora.py
	$(BIN)/python benchmarks/speed.py --write
	$(BIN)/python benchmarks/planted.py
	$(BIN)/python benchmarks/deep.py
	$(BIN)/python benchmarks/operators.py

# The constraints pin what we test with. A torch for CPUs comes from an index that has one: PIP_EXTRA_INDEX_URL=... make test
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test,lint]"
	touch $@

# The suite with another torch, in an environment of its own: make torch VERSION=2.15.0 (for GPUs: gigabytes; it runs on a CPU).
torch: pyproject.toml constraints.txt
	test -n "$(VERSION)"
	$(PYTHON) -m venv .torch-$(VERSION)
	grep -v '^torch==' constraints.txt > .torch-$(VERSION)/constraints.txt
	.torch-$(VERSION)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint .torch-$(VERSION)/constraints.txt --editable ".[test]" "torch==$(VERSION)"
	.torch-$(VERSION)/bin/python -m pytest -n 2

clean:
	rm -rf $(VENV) .torch-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
