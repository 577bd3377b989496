# The targets a person types. Each does its own set-up; what takes long is cached outside the checkout.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SETUP := $(VENV)/.ready

.PHONY: help setup demo test test-fast lint generate lock cluster cluster-down test-elsewhere bench trace bench-hot bench-jeg bench-warm bench-races bench-logs bench-scale bench-all bench-clean bench-floods fuzz wheels images sbom signing-key sign verify clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(SETUP) ## The virtual environment with the pinned packages

# pip compiles what it installs with one core, compileall with all of them; what cannot be compiled does no harm.
$(SETUP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
	-$(PY) -m compileall -qq -j 0 $(VENV)/lib
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

generate: $(SETUP) ## CRDs, rendered manifests, the table of values, the OpenAPI document and the reference pages, alerts and dashboards from their sources
	$(PY) -m linkis_ecm.model.crd crds helm/linkis-ecm/crds
	$(PY) -m tools.render manifests
	$(PY) -m tools.values_table helm/linkis-ecm/README.md
	$(PY) -m linkis_ecm.gateway.openapi docs/openapi.json
	$(PY) -m tools.reference docs
	$(PY) -m tools.observability.rules
	$(PY) -m tools.dashboards
	$(PY) -m bench.chart
	$(PY) -m bench.page

cluster: $(SETUP) ## A real cluster: the current one (CLUSTER=current), kind, or a node built from source
	$(PY) -m tools.cluster up

cluster-down: $(SETUP) ## Stops it and leaves nothing behind
	$(PY) -m tools.cluster down

test-elsewhere: $(SETUP) ## Node, chart and an engine in a virtual machine with cgroup v2 and every capability (10 minutes)
	$(PY) -m tools.elsewhere here

bench: $(SETUP) ## The benchmarks on the cluster, as ratios of one run
	$(PY) -m bench

TRACE_CALLS ?= 200
trace: $(SETUP) ## Where the time of a warm call goes, and of an engine's life in the operator, hop by hop, on loopback
	$(PY) -m bench.trace --calls $(TRACE_CALLS)

bench-hot: $(SETUP) ## Events, results, a crowd and bad neighbours on loopback, beside their floors (no cluster, 4 minutes)
	$(PY) -m bench.hot

bench-jeg: $(SETUP) ## Jupyter Enterprise Gateway beside ours: first result, cold, and round trip
	$(PY) -m bench.jeg

bench-warm: $(SETUP) ## Engines that a warm pool has ready: one at a time, at a rate, many at once
	$(PY) -m bench.warm

bench-races: $(SETUP) ## 200 engines race for a warm pool's pods while operators are killed (6 minutes)
	$(PY) -m bench.races

bench-logs: $(SETUP) ## The benchmark of logs on loopback: no cluster, 4 GiB of disk for a minute
	$(PY) -m bench.logs

bench-scale: $(SETUP) ## 10,000 engines on a control plane of their own: no cluster, Go for its binaries (15 minutes)
	$(PY) -m bench.scale

KEPT ?=
bench-all: $(SETUP) ## All ratios of the hot paths in one run of at most 25 minutes, as JSON in out/bench; KEPT="files": worse than these?
	$(PY) -m bench.all $(if $(KEPT),--compare $(KEPT))

bench-clean: $(SETUP) ## Removes what a killed benchmark left in the cluster and on the disk
	$(PY) -m bench.clean

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
	echo jupyter_enterprise_gateway==3.3.0 | $(LOCK) - -o bench/jeg/jeg-requirements.txt

clean: ## The virtual environment and caches of the checkout
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
