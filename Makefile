# quorumlog: `make up` starts a cluster, `make test` proves it. Both begin with `make install`.
# ARGS goes to the command: make up ARGS="--nodes 1 --no-demo", make test ARGS="tests/unit -x".
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install native up test fuzz chaos soak lint types format bench ci lock clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: .venv/.installed .venv/.native  ## the environment alone, from the lock

.venv/.installed: requirements.lock pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "quorumlog needs Python 3.11 or later, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	@echo "installing locked dependencies into .venv (a minute the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  -e ./client -e .
	@touch $@

# Without a Rust toolchain this says so and goes on, each time: there is nothing to remember then.
.venv/.native: .venv/.installed native/build native/Cargo.lock native/Cargo.toml native/pyproject.toml $(wildcard native/src/*.rs)
	@PYTHON=../$(BIN)/python native/build --stamp ../$@

native: .venv/.installed  ## the native kernels, built anew, and why not if they cannot be
	@PYTHON=../$(BIN)/python native/build --required

up: install  ## three nodes on loopback with sample logs; Ctrl-C stops, data stays
	@exec $(BIN)/quorumlog up $(ARGS)

# What starts clusters and stops a clock has the machine to itself, after all the rest; see pyproject.toml's markers.
test: install  ## the whole test suite, on all cores where tests allow it; with ARGS one pytest with these
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "beside or not (integration or chaos)"
	$(BIN)/python -m pytest -m "not beside" tests/integration tests/chaos
else
	$(BIN)/python -m pytest $(ARGS)
endif

MINUTES ?= 5
fuzz: install  ## hostile inputs for MINUTES (5): the kernel against Python, decoders; cargo-fuzz if it is there
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)
	@native/fuzz/run $(MINUTES)

SEEDS ?= 100
SECONDS_EACH ?= 30
chaos: install  ## SEEDS (100) simulations, all planted bugs, every scenario for SECONDS_EACH (30): needs root for disks
	$(BIN)/quorumlog chaos sim --seeds $(SEEDS)
	$(BIN)/quorumlog chaos sim --mutants --seeds 40 --seed 0
	$(BIN)/quorumlog chaos run --seconds $(SECONDS_EACH) $(ARGS); status=$$?; $(BIN)/quorumlog chaos ledger; exit $$status

soak: install  ## MINUTES (5) of managers killed while they agree, of none killed, then of everything at once
	$(BIN)/python -m tests.soak.raft_kills --seconds $$(( $(MINUTES) * 60 ))
	$(BIN)/python -m tests.soak.quiet_leader --minutes $(MINUTES)
	$(BIN)/quorumlog chaos run mix --seconds $$(( $(MINUTES) * 60 ))

lint: install  ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

types: install  ## types alone
	$(BIN)/basedpyright

format: install  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## the benchmark: ours beside other stores, a table and bench/out/*.json
	$(BIN)/python -m bench $(ARGS)

ci:  ## what the continuous integration runs
	.ci/run

LOCK := uv pip compile --quiet --generate-hashes --no-annotate --no-header --no-emit-index-url \
  --no-emit-find-links --no-emit-package quorumlog -p 3.11

lock:  ## write the lock files anew (needs uv); the server's is a part of the whole one
	$(LOCK) --extra chaos --extra bench --group dev pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock pyproject.toml -o requirements-server.lock

clean:  ## remove the environment and caches
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
