# quorumlog: `make up` starts a cluster, `make test` proves it. Both begin with `make install`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install up test lint types bench lock clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: .venv/.installed  ## the environment alone, from the lock

.venv/.installed: requirements.lock pyproject.toml client/pyproject.toml
	@echo "installing locked dependencies into .venv (a minute the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e ./client -e .
	@touch $@

up: install  ## three nodes on loopback with sample logs; Ctrl-C stops, data stays
	@exec $(BIN)/quorumlog up $(ARGS)

test: install  ## the whole test suite
	$(BIN)/python -m pytest $(ARGS)

lint: install  ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: install  ## the benchmark: a table and bench/out/*.json
	$(BIN)/python -m bench $(ARGS)

lock:  ## write requirements.lock anew (needs uv)
	uv pip compile --quiet --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --no-emit-package quorumlog --extra chaos --extra bench --group dev -p 3.11 pyproject.toml -o requirements.lock

clean:  ## remove the environment and caches
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
