# The targets a person types. Each does its own set-up; what takes long is cached outside the checkout.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SETUP := $(VENV)/.ready

.PHONY: help setup demo test test-fast lint generate lock cluster cluster-down test-elsewhere bench bench-jeg bench-logs bench-floods fuzz wheels images sbom signing-key sign verify clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(SETUP) ## The virtual environment with the pinned packages

$(SETUP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PY) -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(SETUP) ## The main job on a real cluster: install, an engine, code, its states, its row, its log
	$(PY) -m e2e.demo

test: $(SETUP) ## Everything: lint, types, unit, simulation, store, agent, gateway, client, Linkis's own client, a browser, and e2e on a real cluster
	$(PY) -m tools.checks all

test-fast: $(SETUP) ## Everything but the cluster, the browser and Java
	$(PY) -m tools.checks fast

lint: $(SETUP) ## ruff, mypy --strict, import-linter; pins, licence, secrets, file modes
	$(PY) -m tools.checks lint

generate: $(SETUP) ## CRDs, rendered manifests, the table of values, the OpenAPI document and the reference pages from their sources
	$(PY) -m linkis_ecm.model.crd crds helm/linkis-ecm/crds
	$(PY) -m tools.render manifests
	$(PY) -m tools.values_table helm/linkis-ecm/README.md
	$(PY) -m linkis_ecm.gateway.openapi docs/openapi.json
	$(PY) -m tools.reference docs

cluster: $(SETUP) ## A real cluster: the current one (CLUSTER=current), kind, or a node built from source
	$(PY) -m tools.cluster up

cluster-down: $(SETUP) ## Stops it and leaves nothing behind
	$(PY) -m tools.cluster down

test-elsewhere: $(SETUP) ## Node, chart and an engine in a virtual machine with cgroup v2 and every capability (10 minutes)
	$(PY) -m tools.elsewhere here

bench: $(SETUP) ## The benchmarks on the cluster, as ratios of one run
	$(PY) -m bench

bench-jeg: $(SETUP) ## Jupyter Enterprise Gateway beside ours: first result, cold, and round trip
	$(PY) -m bench.jeg

bench-logs: $(SETUP) ## The benchmark of logs on loopback: no cluster, 4 GiB of disk for a minute
	$(PY) -m bench.logs

bench-floods: $(SETUP) ## Attacks on real processes on loopback: memory, stalls, and what a user sees (15 minutes)
	$(PY) -m bench floods

MINUTES ?= 60
SEED ?= 0
fuzz: $(SETUP) ## Fuzzes every port of real processes on loopback for MINUTES, from SEED
	$(PY) -m tools.fuzz --minutes $(MINUTES) --seed $(SEED)

PLATFORM ?= linux/arm64
wheels: $(SETUP) ## Whether each pinned package of the images has a wheel for PLATFORM (linux/arm64)
	$(PY) -m tools.platforms wheels --platform $(PLATFORM)

images: $(SETUP) ## Both images for PLATFORM (linux/arm64) on BASE_IMAGE=…@sha256:…, with Docker or buildah
	$(PY) -m tools.platforms build --platform $(PLATFORM) --base $(BASE_IMAGE)

sbom: $(SETUP) ## Both images in out/images, with lists of their contents (SPDX, CycloneDX) and provenance
	$(PY) -m tools.supply sbom

signing-key: $(SETUP) ## A key pair outside the checkout: LINKIS_ECM_SIGNING_KEY, else ~/.config/linkis-ecm/cosign.key
	$(PY) -m tools.supply key

sign: $(SETUP) ## Signs what `make sbom` wrote, by that key (COSIGN_PASSWORD opens it)
	$(PY) -m tools.supply sign

verify: $(SETUP) ## Whether out/images is as it was signed, by LINKIS_ECM_VERIFY_KEY, else cosign.pub beside the key
	$(PY) -m tools.supply verify

# One resolution for everything, so that tests run what the images hold.
LOCK := uv pip compile -q --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links --no-annotate --generate-hashes
lock: ## The pins in requirements/, from pyproject.toml (needs uv)
	$(LOCK) pyproject.toml --extra server --group dev --group agent --group python-engine -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra server -c requirements/dev.txt -o requirements/runtime.txt
	$(LOCK) --group agent --group python-engine --group installers -c requirements/dev.txt -o requirements/engine-python.txt
	echo jupyter_enterprise_gateway==3.3.0 | $(LOCK) - -o bench/jeg-requirements.txt

clean: ## The virtual environment and caches of the checkout
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
