.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/kantoku-kafka: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

install: $(BIN)/kantoku-kafka ## Install the project and its tools into .venv

test: install ## Run all tests; the integration tests run on a real Kafka
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

MODE ?= scram
SECURED ?= tests/integration
test-secured: install ## The integration tests on a secured Kafka, each client with the rights of its role; MODE=scram|mtls
	KANTOKU_TEST_SECURED=$(MODE) $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(SECURED) $(ARGS)

lint: install ## ruff, mypy --strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## The documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

screens: install ## Record what commands print, into docs/screens.md
	$(BIN)/python docs/record.py

generated: install ## What of deploy/ follows from code: dashboard, topics and rights of the example
	PATH="$(CURDIR)/$(BIN):$$PATH" deploy/generate.sh

demo: install ## Thousands of tasks on a real Kafka, an executor killed amid them, the account
	$(BIN)/kantoku-kafka demo $(ARGS)

crash: install ## The crash tests at full scale: 20,000 tasks, 15 kills each
	KANTOKU_CRASH_TASKS=20000 $(BIN)/python -m pytest tests/integration/test_crash.py

retries: install ## Retries and timers at full scale: 10,000 tasks, 100,000 timers, processes killed meanwhile
	KANTOKU_RETRY_TASKS=10000 KANTOKU_TIMERS=100000 $(BIN)/python -m pytest -q tests/integration/test_timers.py

bench: install ## This program against hand-written loops, side by side
	$(BIN)/python -m benchmarks $(ARGS)

bench-replay: install ## The audit topic against a hand-written loop: a million events
	$(BIN)/python -m benchmarks.replay $(ARGS)

bench-timers: install ## What pending timers and remembered ids cost: a million of each
	$(BIN)/python -m benchmarks.timers $(ARGS)

RUN ?= eos-executor
SEED ?= 1
SCALE ?= 0.1
chaos: install ## Break Kafka and executors on purpose, judge the topics; RUN=eos-broker SEED=7 SCALE=0.1
	$(BIN)/python -m tests.chaos $(RUN) --seed $(SEED) --scale $(SCALE) $(ARGS)

chaos-short: install ## Each run and each mutant that needs a broker, once and small: a quarter of an hour
	KANTOKU_CHAOS=all $(BIN)/python -m pytest -n 2 tests/integration/test_chaos.py

chaos-all: install ## Every run, SEEDS=20 seeds each, JOBS=1 at once: hours; called again, it goes on
	$(BIN)/python -m tests.chaos all --seed $(SEED) --seeds $(or $(SEEDS),20) --scale $(SCALE) --jobs $(or $(JOBS),1) $(ARGS)

mutants: install ## The program with one defect each: the checker has to catch them all
	$(BIN)/python -m tests.chaos mutants --seed $(SEED) --seeds $(or $(SEEDS),3) --scale $(SCALE) $(ARGS)

soak: install ## A steady load with rebalances; what executors hold must not grow; MINUTES=30
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(ARGS)

simulate: install ## Schedules of the engine in a simulated Kafka; SCHEDULES=100000 SEED=1
	$(BIN)/python -m tests.simulation --schedules $(or $(SCHEDULES),100000) --seed $(SEED) $(ARGS)

fuzz: install ## Bytes, settings and command lines that nobody meant, guided by coverage; SECONDS_EACH=60
	$(BIN)/python -m pip install --quiet --require-hashes -r tests/fuzz/requirements.txt
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS_EACH),60) $(ARGS)

PIN = $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
  --strip-extras --no-header --no-annotate

pin: install ## Pin anew what the project is tested with, and of it what its image holds
	$(BIN)/python -m pip install --quiet pip-tools
	$(PIN) --upgrade --extra broker --extra dev -o constraints.txt pyproject.toml
	$(PIN) -c constraints.txt --extra otel --extra prometheus -o deploy/requirements.txt pyproject.toml
	$(PIN) --upgrade -o tests/fuzz/requirements.txt tests/fuzz/requirements.in

clean: ## Remove what make install and the tests left
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: bench bench-replay bench-timers chaos chaos-all chaos-short clean crash demo docs fuzz generated help install lint mutants pin retries screens \
  simulate soak test test-secured
