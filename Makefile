# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test lint types clean

demo: $(READY)
	$(VENV)/bin/heliostat run configs/quickstart.yaml

test: $(READY) lint types
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff format --check heliostat examples tests benchmarks
	$(VENV)/bin/ruff check heliostat examples tests benchmarks

types: $(READY)
	$(VENV)/bin/mypy

# The environment is made anew whenever what it is made from changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) 2>/dev/null || python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .heliostat
