# What a developer does in a day. `make help` lists it.
PYTHON    ?= python3
DATA      ?= demo/data
RUN       ?= run
ARTIFACTS ?= artifacts
PHOTOS    ?= ../shared
FUZZ_SECONDS ?= 60
# One worker for each CPU, at most four; what serves runs in one of them. PYTEST_ARGS= runs all in one process.
PYTEST_ARGS  ?= -n auto --dist loadgroup
PY        := .venv/bin/python
LOWEST    := $(shell sed -n 's/^requires-python = ">=\([0-9.]*\),.*/\1/p' pyproject.toml)
PIP_COMPILE := .venv/bin/uv pip compile -q --universal --python-version $(LOWEST) --generate-hashes --no-emit-index-url \
             --no-header --no-annotate
COMPILE   := $(PIP_COMPILE) pyproject.toml
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: requirements/dev.lock requirements/uv.lock
	$(PYTHON) .ci/interpreters.py --check
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock
	.venv/bin/uv pip sync --python $(PY) --compile-bytecode --require-hashes requirements/dev.lock requirements/uv.lock
	.venv/bin/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	$(PY) -m unmask serve setup
	@touch $@

.PHONY: setup
setup: .venv/installed ## install everything into .venv

.PHONY: demo
demo: setup ## train, export, serve and score; DATA=DIR for your own photos
	@PY=$(PY) DATA=$(DATA) RUN=$(RUN) ARTIFACTS=$(ARTIFACTS) bash demo.sh

.PHONY: serve
serve: setup ## serve $(ARTIFACTS) until Ctrl-C
	$(PY) -m unmask serve start --artifacts $(ARTIFACTS)

.PHONY: test
test: setup lint ## lint and run every test
	$(PY) -m pytest $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: setup ## run the tests that need no server, no training and no export: a minute
	$(PY) -m pytest $(PYTEST_ARGS) -m 'not serve and not slow'

.PHONY: test-all
test-all: setup ## run the fast tests on every Python that is supported and installed here, each in a .venv-3.X of its own
	@for python in $$($(PY) .ci/interpreters.py); do $(MAKE) --no-print-directory test-on ON=$$python || exit 1; done

# One interpreter of `test-all`: ON=VERSION=PATH, as .ci/interpreters.py prints it.
.PHONY: test-on
test-on: VERSION = $(firstword $(subst =, ,$(ON)))
test-on: INTERPRETER = $(lastword $(subst =, ,$(ON)))
test-on:
	@echo "== Python $(VERSION)"
	@[ -x .venv-$(VERSION)/bin/python ] || .venv/bin/uv venv --quiet --python $(INTERPRETER) .venv-$(VERSION)
	.venv/bin/uv pip sync --quiet --python .venv-$(VERSION)/bin/python --require-hashes requirements/dev.lock
	.venv-$(VERSION)/bin/python -m pytest -q $(PYTEST_ARGS) -m 'not serve and not slow' -p no:cacheprovider

.PHONY: lint
lint: setup ## ruff, mypy, the layers of imports and spelling
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell

.PHONY: coverage
coverage: setup ## measure which lines and branches the tests reach, and fail below the floor in pyproject.toml
	$(PY) -m pytest $(PYTEST_ARGS) --cov --cov-branch --cov-report=term:skip-covered --cov-report=html:reports/coverage

.PHONY: tools
tools: ## install the optional Debian packages of requirements/debian.txt: tests without theirs are skipped
	@packages="$$(sed 's/#.*//' requirements/debian.txt | xargs)"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $$packages; \
	else \
	  echo "error: this needs root and apt-get; on Debian: sudo apt-get install $$packages" >&2; exit 1; \
	fi

.PHONY: sbom
sbom: setup ## write reports/sbom.json, a CycloneDX list of what a server installs
	mkdir -p reports
	.venv/bin/uv tool run --quiet --from cyclonedx-bom==7.1.0 cyclonedx-py requirements requirements/serve.lock \
	  --output-reproducible --of JSON -o reports/sbom.json

.PHONY: release
release: setup ## check that this commit can be released, build the wheel, and print the commands that publish it
	$(PY) .ci/release.py
	rm -rf dist build
	.venv/bin/uv build --quiet --out-dir dist
	@ls dist
	@version=$$($(PY) -c 'import unmask; print(unmask.__version__)'); \
	printf 'to release it:\n  git tag -a v%s -m "Unmask %s"\n  git push origin v%s\n' $$version $$version $$version

.PHONY: docs
docs: setup ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

.PHONY: dashboards
dashboards: setup ## write the dashboards and the operator's rules in k8s/monitoring from their sources
	$(PY) -m k8s.monitoring.render

.PHONY: bench
bench: setup ## roofline, capacity and latency-throughput curve over REST and gRPC, with an HTML report: eight minutes
	$(PY) -m unmask bench run --artifacts $(ARTIFACTS) --out reports/benchmark

PEERS := $(patsubst requirements/peers-%.lock,%,$(wildcard requirements/peers-*.lock))

# Each peer has an environment of its own. One that can't be installed here is named in the table, with its reason.
.venv-peers/%/installed: requirements/peers-%.lock
	.venv/bin/uv venv --quiet --clear --python $(PY) .venv-peers/$*
	.venv/bin/uv pip sync --quiet --python .venv-peers/$*/bin/python --compile-bytecode --require-hashes $<
	@touch $@

.PHONY: peers
peers: setup ## measure other servers beside ours, each in a .venv-peers/NAME of its own
	-@$(MAKE) --no-print-directory --keep-going $(PEERS:%=.venv-peers/%/installed)
	$(PY) -m unmask bench peers --artifacts $(ARTIFACTS) --out reports/peers

.PHONY: fuzz
fuzz: setup ## look for photos that break decode_image, for FUZZ_SECONDS=60
	OMP_NUM_THREADS=1 $(PY) -m tests.fuzz_decode --seconds $(FUZZ_SECONDS)

.PHONY: faults
faults: setup ## provoke each fault on a real server: metrics move, alerts fire, the runbook ends them (reports/faults.md)
	$(PY) -m pytest --faults -m faults tests/faults tests/serve

.PHONY: results
results: setup ## train every architecture on two sets of photos and write docs/explanation/results.md (an hour or two on a CPU)
	$(PY) -m unmask bench results --faces $(PHOTOS)/data/faces --composites $(PHOTOS)/data/composites \
	  --weights $(PHOTOS)/weights/squeezenet1_1_imagenet_features.safetensors

.PHONY: image-test
image-test: ## build the image with buildah, run it, score a photo in it
	bash k8s/image_test.sh

.PHONY: lock
lock: setup ## write requirements/*.lock again from pyproject.toml
	$(COMPILE) --extra dev -o requirements/dev.lock
	$(COMPILE) --extra serve -o requirements/serve.lock
	$(COMPILE) --extra serve-cpu -o requirements/serve-cpu.lock
	for peer in $(PEERS); do \
	  $(PIP_COMPILE) --group pyproject.toml:peer-$$peer -c requirements/serve-cpu.lock -o requirements/peers-$$peer.lock || exit 1; \
	done
	echo 'uv==$(shell .venv/bin/uv --version | cut -d' ' -f2)' | $(PIP_COMPILE) - -o requirements/uv.lock

.PHONY: clean
clean: ## remove what the demo and the tools wrote (not .venv)
	rm -rf run artifacts demo reports site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
