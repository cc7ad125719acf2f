# Needs Python 3.11 or newer, git and make; everything else is installed in .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-requirements
LAPWING := $(CURDIR)/$(BIN)/lapwing
SEED ?= 1
SECONDS ?= 120
RUNTIME ?= process

.PHONY: help setup up down demo test test-slow test-terraform test-cluster test-versions lint check format bench crash chaos lock docs

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t14

$(STAMP): requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Lapwing needs Python 3.11 or newer; set PYTHON=python3.12, for example."; rm -rf $(VENV); exit 1; }
	@echo "Installing requirements.txt into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

setup: $(STAMP)  ## Create .venv and install lapwing in it

up: setup  ## Start examples/company-inc at https://localhost:8585
	@$(LAPWING) up examples/company-inc

down: setup  ## Stop the example; its data stays
	@$(LAPWING) -C examples/company-inc down

demo: setup  ## Deploy under load, break things on purpose, count failed requests
	@$(LAPWING) demo

test: setup  ## Run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not cluster"

test-slow: setup  ## Run also the tests that take minutes
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not cluster"

test-terraform: setup  ## Validate the rendered Terraform with Terraform and checkov (5 min, first time 10)
	@$(BIN)/python -m tests.terraform.mirror $(VENV)/terraform
	@LAPWING_TEST_TERRAFORM=$(CURDIR)/$(VENV)/terraform LAPWING_TEST_REQUIRE=terraform,terraform-schemas \
	  $(BIN)/python -m pytest -n 2 tests/terraform

test-cluster: setup  ## Run the tests against a Kubernetes cluster (30 min, first time up to 70)
	@.ci/install-cluster $(VENV)/cluster
	@.ci/install-node $(VENV)/cluster
	@.ci/install-mysql
	@.ci/install-mongosh
	@LAPWING_TEST_CLUSTER=$(CURDIR)/$(VENV)/cluster LAPWING_TEST_REQUIRE=cluster,registry \
	  $(BIN)/python -m pytest -n 2 --dist loadgroup -m cluster tests/cluster

test-versions: setup  ## Run the unit tests with the lowest and highest allowed dependencies (10 min)
	@.ci/test-versions

lint: setup  ## Run ruff, mypy and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

check: lint test  ## Run lint and test: what every change has to pass

format: setup  ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup  ## Run the benchmarks, beside the installed peers
	@$(BIN)/python -m benchmarks all

crash: setup  ## Run the crash tests: kill the agent and Envoy at every step of a deployment
	@$(BIN)/python -m pytest tests/integration/crash tests/integration/containers/test_crash.py -n 0 -m "slow or not slow"

chaos: setup  ## Deploy under load and random faults: SEED=1 SECONDS=120 RUNTIME=process|container
	@$(BIN)/python -m tests.chaos --seed $(SEED) --seconds $(SECONDS) --runtime $(RUNTIME)

docs: setup  ## Generate the reference pages and build the documentation site in site/
	@$(BIN)/python -m lapwing.stack.reference --write docs
	@$(BIN)/python -m docs.generate.cli
	@$(BIN)/python -m docs.generate.layers
	@$(BIN)/python -m docs.generate.json_output
	@$(BIN)/python -m docs.generate.pictures
	@$(BIN)/python -m docs.generate.documents
	@$(BIN)/zensical build --strict --clean

lock: setup  ## Resolve the dependencies again and write requirements.txt, also for servers
	@$(BIN)/uv pip compile --quiet --generate-hashes --no-strip-extras --no-emit-index-url --no-header --group dev \
	  --extra backup --extra build --extra design --extra keyless --extra machine pyproject.toml \
	  -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --extra backup --extra machine pyproject.toml -o src/lapwing/server/requirements.txt
