# Everything a fresh machine needs is made here: Python 3.11+, git and make are enough.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-requirements
LAPWING := $(CURDIR)/$(BIN)/lapwing

.PHONY: help setup up down demo test test-slow test-terraform test-cluster lint check format bench crash lock docs

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t14

$(STAMP): requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Lapwing needs Python 3.11 or newer; set PYTHON=python3.12, for example."; rm -rf $(VENV); exit 1; }
	@echo "Installing what requirements.txt names into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

setup: $(STAMP)  ## Make .venv with lapwing in it

up: setup  ## Run examples/company-inc on https://localhost:8585
	@$(LAPWING) up examples/company-inc

down: setup  ## Stop it again; its data stays
	@$(LAPWING) -C examples/company-inc down

demo: setup  ## Deploy under load, break things, count failed requests
	@$(LAPWING) demo

test: setup  ## Run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not cluster"

test-slow: setup  ## Run the tests that take minutes, too
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not cluster"

test-terraform: setup  ## Check rendered clouds with Terraform and checkov (5 min, first time 10)
	@$(BIN)/python -m tests.terraform.mirror $(VENV)/terraform
	@LAPWING_TEST_TERRAFORM=$(CURDIR)/$(VENV)/terraform LAPWING_TEST_REQUIRE=terraform,terraform-schemas \
	  $(BIN)/python -m pytest -n 2 tests/terraform

test-cluster: setup  ## Apply stacks to a real Kubernetes API (10 min, first time up to 40)
	@.ci/install-cluster $(VENV)/cluster
	@LAPWING_TEST_CLUSTER=$(CURDIR)/$(VENV)/cluster LAPWING_TEST_REQUIRE=cluster \
	  $(BIN)/python -m pytest -n 2 --dist loadgroup -m cluster tests/cluster

lint: setup  ## Lint, type-check, check the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

check: lint test  ## All that a change has to pass

format: setup  ## Put the code in its usual form
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup  ## Measure beside the peers that are installed
	@$(BIN)/python -m benchmarks all

crash: setup  ## Kill the agent and Envoy at every step of deployments
	@$(BIN)/python -m pytest tests/integration/crash -n 0 -m "slow or not slow"

docs: setup  ## Write the generated pages again
	@$(BIN)/python -m lapwing.stack.reference --write docs

lock: setup  ## Choose versions again and write requirements.txt
	@$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --group dev \
	  --extra build pyproject.toml -o requirements.txt
