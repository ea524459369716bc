# Thin verbs; `make help` lists them. Every verb installs what it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
CLUSTER ?= lab
BENCH ?=
ARGS ?=
PYTEST_ARGS ?=
# Tests wait as much as they compute: three at a time keep two cores busy.
TEST_WORKERS ?= 3
bin := $(VENV)/bin
.DEFAULT_GOAL := help

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: $(VENV)/.ready  ## the development environment, from the hashed lock
$(VENV)/.ready: requirements-dev.lock pyproject.toml
	test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(bin)/pip install -q --require-hashes -r requirements-dev.lock
	$(bin)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: venv  ## three cache nodes on this machine fetch a 1 GiB model: no cluster, no root
	$(bin)/python -m modelcache_node.cli demo $(ARGS)

test: venv  ## the test suite; PYTEST_ARGS="-k name" narrows it
	$(PYTHON) tests/system_packages.py
	$(bin)/pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-live: venv  ## real services, with credentials from the environment (e2e/live)
	$(bin)/pytest e2e/live -p no:cacheprovider $(PYTEST_ARGS)

soak: venv  ## hundreds of kill -9 under readers that check every byte; needs root
	MODELCACHE_SOAK=1 $(bin)/pytest tests/csi_driver/test_kill_loop.py -s $(PYTEST_ARGS)

csi-sanity: venv  ## the CSI conformance suite, built once; needs root and Go
	$(bin)/pytest e2e/conformance -p no:cacheprovider -s $(PYTEST_ARGS)

check: venv  ## linters, types, layers, generated files
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(MAKE) --no-print-directory generate-check

generate: venv  ## CRDs, chart copies and protocol stubs from their sources
	$(bin)/python -m modelcache_api.crd crds charts/modelcache/files/crds
	$(bin)/python csi_driver/generate_stubs.py

generate-check: generate
	git diff --exit-code -- "crds/*.yaml" csi_driver/modelcache_csi/_proto charts

lock:  ## pin the newest allowed dependencies, with hashes
	uv pip compile --generate-hashes --no-emit-index-url -q --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile --generate-hashes --no-emit-index-url -q --python-version 3.11 pyproject.toml --group dev -o requirements-dev.lock

image: venv  ## the one image, as an OCI archive, without Docker
	$(PYTHON) -m e2e.lab image $(ARGS)

e2e: venv  ## the scenarios on a real Kubernetes: CLUSTER=lab|kind|existing
	CLUSTER=$(CLUSTER) $(bin)/pytest e2e/scenarios -p no:cacheprovider --durations=20 $(PYTEST_ARGS)

bench: venv  ## all benchmarks, or BENCH=cold ARGS="--quick --json --check"
	@set -e; for b in $(or $(BENCH),$(patsubst benchmarks/%.py,%,$(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))); do \
	  $(bin)/python benchmarks/$$b.py $(ARGS); done

ci:  ## what CI runs: check, the README's test, the end-to-end run
	$(MAKE) check
	@# first, as the tests' real API server is one of the lab's programs
	if [ $(CLUSTER) = lab ]; then $(PYTHON) -m e2e.lab tools; fi
	$(MAKE) test
	$(MAKE) csi-sanity
	$(MAKE) e2e CLUSTER=$(CLUSTER)

.PHONY: help venv demo test test-live soak csi-sanity check generate generate-check lock image e2e bench ci
