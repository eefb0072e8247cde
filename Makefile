# Every target does its own set-up: on a fresh Debian or Ubuntu python3, make and git are enough.
# `## words` behind a target are its line in `make help`.

PYTHON ?= python3
# Workers for the tests: one a core.
JOBS ?= $(shell nproc)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set-up: a virtual environment in stages. A stage is done again when its lock changes.

BASE := $(VENV)/.base
DEVELOPMENT := $(VENV)/.development

# What `make demo` and a person need: claimd, claimd-sandbox and the aws command.
$(BASE): requirements/build.lock requirements/demo.lock pyproject.toml .ci/system-packages
	@.ci/system-packages demo
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements/build.lock
	@$(PIP) --require-hashes -r requirements/demo.lock
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

# What the tests need besides. The source packages among it (systemd-python) are built with the locked
# build tools, not with whatever a registry offers that day.
$(DEVELOPMENT): $(BASE) requirements/dev.lock
	@.ci/system-packages test
	@echo "installing the development dependencies (once)"
	@$(PIP) --require-hashes --no-build-isolation -r requirements/dev.lock
	@touch $@

.PHONY: setup
setup: $(DEVELOPMENT) ## only the set-up that the other targets do by themselves

# ---- daily

.PHONY: demo
demo: $(BASE) ## a claim made by the real aws command becomes an identity, before your eyes
	@$(BIN)/python -m claimd_sandbox.demo

.PHONY: test
test: $(DEVELOPMENT) ## unit and integration tests, linters, types, contracts (some minutes)
	@.ci/system-packages test
	$(PYTEST) -n $(JOBS) --dist loadfile tests

.PHONY: explain
explain: $(DEVELOPMENT) ## every failure provoked: code, time to diagnosis, peer (a minute)
	@PYTHONPATH=daemon:tests $(BIN)/python tests/explain.py

# ---- proofs that take minutes

N ?= 1000000
SEED ?= 1

.PHONY: fuzz
fuzz: $(DEVELOPMENT) ## damaged claims against the parser: make fuzz N=1000000 SEED=1 (some minutes)
	PYTHONPATH=daemon:tests $(BIN)/python -m fuzz.fuzz_claims $(N) --seed $(SEED)

# One point of so many: 1 is the proof, 20 a look.
EVERY ?= 1

.PHONY: faults
faults: $(DEVELOPMENT) ## killed, cut, full, broken and at the wrong time, at every place: one table (some of it as root; 20 minutes)
	@.ci/system-packages test
	PYTHONPATH=daemon:tests $(BIN)/python -m faults.run --jobs $(JOBS) --every $(EVERY)

.PHONY: habits
habits: $(DEVELOPMENT) ## every way of copying a claim, with every shape: real clients, a real sshd (root; five minutes)
	@.ci/system-packages test
	PYTHONPATH=daemon:tests $(BIN)/python -m habits.table
	PYTHONPATH=daemon:tests $(BIN)/python -m habits.upload_accounts

.PHONY: attack
attack: $(DEVELOPMENT) ## what a technician's account can do to the drop directory, tried (root; some minutes)
	@.ci/system-packages test
	PYTHONPATH=daemon:tests $(BIN)/python -m attack.table

.PHONY: bench
bench: $(DEVELOPMENT) ## memory at rest, import times, and drop to proven identity beside the SDK's own client
	@PYTHONPATH=tests $(BIN)/python -m bench

.PHONY: docs
docs: $(DEVELOPMENT) ## docs/failures.md anew from the catalogue of failures
	@PYTHONPATH=daemon:tests $(BIN)/python tests/pages.py

.PHONY: format
format: $(DEVELOPMENT) ## format the source, and mend what the linter can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# ---- packages

ARCH ?= amd64 arm64

.PHONY: deb
deb: $(DEVELOPMENT) ## a .deb for each architecture in dist/ (ARCH="amd64 arm64"; three minutes)
	@.ci/system-packages deb
	PYTHONPATH=daemon $(BIN)/python packaging/deb.py $(addprefix --arch ,$(ARCH)) dist

SUITE ?= bookworm

.PHONY: system-test
system-test: $(DEVELOPMENT) ## the package on a booted machine with systemd (as root; three minutes; SUITE=: README)
	@if [ "$$(id -u)" = 0 ]; then \
		.ci/system-packages system && \
		$(MAKE) --no-print-directory deb ARCH=$$(dpkg --print-architecture) && \
		CLAIMD_SYSTEM_SUITE=$(SUITE) $(PYTEST) -m system tests/system; \
	else \
		echo "system-test: skipped, only root can boot a machine"; test -z "$$CI"; \
	fi

.PHONY: system-test-arm64
system-test-arm64: $(DEVELOPMENT) ## the arm64 package on an emulated ARM64 machine (as root; half an hour)
	@.ci/system-packages system-arm64
	@$(MAKE) --no-print-directory deb ARCH=arm64
	$(PYTEST) -m system_arm64 -s tests/system

# ---- upkeep

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

.PHONY: lock
lock: $(DEVELOPMENT) ## resolve the locked dependencies anew (add UPGRADE=--upgrade for newer versions)
	$(LOCK) $(UPGRADE) requirements/build.in -o requirements/build.lock
	$(LOCK) $(UPGRADE) pyproject.toml --extra sandbox -o requirements/demo.lock
	$(LOCK) $(UPGRADE) pyproject.toml -c requirements/demo.lock -o requirements/device.lock
	$(LOCK) $(UPGRADE) pyproject.toml --extra dev --extra systemd -c requirements/demo.lock -o requirements/dev.lock

.PHONY: clean
clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) build dist *.egg-info daemon/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +
