# Every target sets up what it needs, in .venv: `make demo` and `make test` are all that a fresh machine with
# Python 3.11 has to be told. Plain POSIX make, but for ?=.
#
#   make demo DATABASE_URL=mysql+asyncmy://root@127.0.0.1/shop      the demo on a server of yours
#   make demo ARGS=--help                                           its size, its directory, starting over
#   make demo ARGS=--web                                            with the dashboard
#   make test ARGS='-m sqlite -k dispatch'                          a few tests (-n0: in one process)
#   make test PYTHON=python3.13

PYTHON ?= python3
ARGS ?=

VENV = .venv
BIN = $(VENV)/bin
# Tests wait for a part of their time, so there is one process more than there are cores. With more than that, leases
# of a second are lost for want of the processor. Python caches what it has compiled for all.
PROCESSES = $$(cores=$$(getconf _NPROCESSORS_ONLN) && echo $$((cores < 8 ? cores + 1 : 8)))
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup
PIP = $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
# pip 25.1 is the first that knows --group.
INSTALL = $(PIP) install 'pip>=25.1' && $(PIP) install

.PHONY: help demo test test-fast test-pythons test-lowest bench bench-peers lint screenshots format build lock servers clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile | awk -F': ' '{ printf "make %-12s %s\n", $$1, $$2 }'

demo: $(VENV)/.demo ## real orders and readings, a worker killed in the middle, nothing lost (DATABASE_URL=…)
	@$(BIN)/python -m app.demo $(ARGS)

test: servers $(VENV)/.dev lint ## lint, then every test on MySQL, MariaDB, Redis and SQLite (ARGS=… for pytest)
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/.dev ## unit and conformance tests, on SQLite and, where it is installed, Redis
	$(PYTEST) -m 'not mysql and not mariadb' --hypothesis-profile fast $(ARGS) tests/unit tests/conformance

bench: servers $(VENV)/.dev ## measure outbox beside bare SQL, on every store (ARGS=--help)
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: servers $(VENV)/.dev ## measure outbox beside other job queues, which it installs (ARGS=--help)
	@benchmarks/peers/install $(VENV)/peers $(BIN)/python
	$(BIN)/python -m benchmarks.peers --python $(VENV)/peers/bin/python $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd docs/examples && ../../$(BIN)/mypy --strict --config-file= .
	$(BIN)/lint-imports

screenshots: servers $(VENV)/.dev ## pictures of the dashboard while the demo runs, in docs/screenshots/
	$(BIN)/python -m app.demo.screenshots docs/screenshots

format: $(VENV)/.dev ## let ruff rewrite the code
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

build: $(VENV)/.dev ## the wheel and the source distribution, in dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

test-pythons: $(VENV)/.dev ## unit and conformance tests on every Python from 3.11 that is on this machine
	@tests/pythons/run $(BIN)/uv $(VENV)/pythons highest

test-lowest: $(VENV)/.dev ## the same on the oldest Python, with the oldest versions that pyproject.toml allows
	@tests/pythons/run $(BIN)/uv $(VENV)/lowest lowest-direct

lock: $(VENV)/.dev ## pin what the image installs, in deploy/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-package outbox-queue --no-emit-index-url \
	  --custom-compile-command 'make lock' --extra mysql --extra redis --extra uvloop --group app pyproject.toml \
	  --output-file deploy/requirements.lock

servers: ## install the servers that the tests start, where that is possible
	@tests/servers/install

clean: ## remove everything that make has made here
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again whenever pyproject.toml has changed. What `dev` installs is enough for `demo`, so it counts for both.
$(VENV)/.dev: pyproject.toml $(BIN)/pip
	@echo 'installing outbox and its development tools in $(VENV)'
	@$(INSTALL) --editable '.[mysql,redis,reload,uvloop,web]' --group dev
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: pyproject.toml $(BIN)/pip
	@echo 'installing outbox and what the demo needs in $(VENV)'
	@$(INSTALL) --editable '.[mysql,redis,uvloop,web]' --group demo
	@touch $@

# Debian's python3 comes without ensurepip, and then venv makes an environment that has no pip: better none at all.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'outbox needs Python 3.11 or later: make PYTHON=python3.x' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(INSTALL_ENSUREPIP) || { echo "outbox needs Python's venv: install $(VENV_PACKAGE)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

VENV_PACKAGE = $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
INSTALL_ENSUREPIP = { [ "$$(id -u)" = 0 ] && apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install "$(VENV_PACKAGE)" >/dev/null; }
