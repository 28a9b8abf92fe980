# Everything a developer or CI does, by name. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
ARGS ?=

export NETPREDICT_DATA ?= $(abspath ../shared/data)

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults fuzz lint bench bench-train soak broker lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'test, faults, fuzz, bench, demo and broker take more words in ARGS, such as: make test ARGS="-k broker -x"'

setup: $(VENV)/.stamp ## make .venv exactly as locked, with netpredict installed editable

# uv and the packages both come with hashes. uv does not read pip's own configuration: where the index can only be had
# through that, pip installs the same lock, slower and without removing what is no longer in it.
$(VENV)/.stamp: pyproject.toml requirements.lock bootstrap.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r bootstrap.lock
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock bootstrap.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## show what netpredict does, without a broker (netpredict demo)
	$(BIN)/netpredict demo $(ARGS)

# Those of the fault catalogue mostly wait, so they run two at a time.
test: setup ## run the tests
ifeq ($(ARGS),)
	$(BIN)/python -m pytest --ignore tests/faults
	$(BIN)/python -m pytest tests/faults --numprocesses 2 --dist loadfile
else
	$(BIN)/python -m pytest $(ARGS)
endif

faults: setup ## run the fault catalogue in full (about an hour on 2 cores); its table goes to build/faults.json
	$(BIN)/python -m pytest tests/faults -m "not benchmark" -k "not short" $(ARGS)

# mypy finds the plugins under the name they are imported by
lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/mypy && ln -sfn ../../plugins build/mypy/netpredict_plugins
	$(BIN)/mypy

fuzz: setup ## 200,000 mutated records through the pipeline, 20,000 through a broker and a daemon (some minutes)
	$(BIN)/python -m tests.fuzz.run $(ARGS)

bench: setup ## run the benchmarks (tests/benchmarks)
	$(BIN)/python -m pytest tests/benchmarks -m "" -s --ignore tests/benchmarks/test_soak.py $(ARGS)

soak: setup ## run the daemon for 30 minutes under bursts (SOAK_MINUTES=5 make soak)
	$(BIN)/python -m pytest tests/benchmarks/test_soak.py -m "" -s $(ARGS)

bench-train: setup ## measure training beside darts and neuralforecast (some GB the first time)
	tests/benchmarks/rivals/setup.sh
	$(BIN)/python -m pytest tests/benchmarks/test_training.py -m "" -s $(ARGS)

broker: setup ## run one Kafka broker for use by hand; prints its address, Ctrl-C stops it
	@$(BIN)/python -m tests.services.kafka_broker $(ARGS)

# Hashes, but no address of an index: no option that writes one, no header that repeats the command.
lock: setup ## write the lock files anew from pyproject.toml (ARGS="--upgrade" takes newer versions)
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --all-extras --group dev pyproject.toml -o requirements.lock $(ARGS)
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --group bootstrap -o bootstrap.lock $(ARGS)

clean: ## remove what was built, but not .venv
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
