# Casemate's tasks. All paths are relative and none has a space in it, so that the folder's own name may have some.
# Nothing is installed outside .venv.

PINS ?= cpu
ARGS ?=
STAMPS := .venv/.casemate
INPUTS := pyproject.toml constraints/$(PINS).txt constraints/install.py
DEV_EXTRAS := $(if $(filter cuda,$(PINS)),dev demo cuda,dev demo)
DEMO_EXTRAS := $(if $(filter cuda,$(PINS)),demo cuda,demo)
RUN := .venv/bin/python
PYTEST := $(RUN) -m pytest -q
# As many processes as there are cores, at most four; a file's tests stay together, as they share what its fixtures make
# (tests/support/scheduling.py). Threads of torch would only wait for each other, and what does not run is not collected.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --ignore tests/gpu -p no:schemathesis
RESULTS := dist/control-results.json
UV_VERSION := 0.13.9

# The system's Python if it is new enough and can make environments, else the first other one that is and can.
FIND_PYTHON = for python in $(PYTHON) /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	python=; \
	done; \
	if [ -z "$$python" ]; then \
	echo "Casemate needs Python 3.11 or newer with venv; found none. On Debian and Ubuntu: apt install python3 python3-venv" >&2; \
	exit 1; \
	fi

.PHONY: image-lock image-fetch image software help setup demo serve test test-long test-gpu test-interop lint demo-model demo-eval docs check-constraints update-constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                start the appliance with the demo model, ask it a question, verify the record of it"
	@echo "make demo ARGS=--once    the same, and end there"
	@echo "make setup               install everything for development into .venv"
	@echo "make test                lint, and all tests that need no GPU and less than a minute each; how those ended that"
	@echo "                         show a control of compliance/controls is written to $(RESULTS)"
	@echo "make test-long           the tests that take longer"
	@echo "make test-gpu            the tests that need a Hopper GPU (with PINS=cuda)"
	@echo "make test-interop        other people's clients and judges against us, in environments of their own: LangChain, lm-eval,"
	@echo "                         Anthropic's SDK, LiteLLM, OpenAI's for JavaScript, Codex, Claude Code, openid-client, compliance-trestle, tuf-js, sigstore, model-signing, CycloneDX, in-toto, Compose, Kubernetes"
	@echo "make lint                ruff, mypy, import rules"
	@echo "make docs                write docs/configuration.md again from the settings"
	@echo "make demo-model          train the demo model again (a Hopper GPU makes it in minutes)"
	@echo "make demo-eval           measure the demo model on held-out questions"
	@echo "make check-constraints   resolve the pins again for every supported Python (needs the package index)"
	@echo "make update-constraints  move the pins to the newest versions that pyproject.toml allows"
	@echo "make image-fetch         collect what the container image is made of, by the lists of digests in image/"
	@echo "make image               build the CPU image twice without a network; fails unless both are the same to the bit"
	@echo "make software            lay the software out as a folder, for bundles to hosts without containers"
	@echo "make image-lock          write those lists again (needs the package index and a Debian mirror)"
	@echo "make clean               remove .venv and caches; state/ stays"
	@echo
	@echo "PINS=cuda takes the versions of constraints/cuda.txt; PYTHON=… chooses the interpreter of .venv."

setup: $(STAMPS)-dev-$(PINS)
	@echo ".venv is ready"

$(STAMPS)-dev-$(PINS): $(INPUTS)
	@$(FIND_PYTHON); "$$python" constraints/install.py $(PINS) $(DEV_EXTRAS)
	@rm -f $(STAMPS)-*
	@touch $(STAMPS)-demo-$(PINS) $@

$(STAMPS)-demo-$(PINS): $(INPUTS)
	@$(FIND_PYTHON); "$$python" constraints/install.py $(PINS) $(DEMO_EXTRAS)
	@rm -f $(STAMPS)-*
	@touch $@

demo: $(STAMPS)-demo-$(PINS)
	@.venv/bin/casemate demo $(ARGS)

serve: $(STAMPS)-demo-$(PINS)
	@.venv/bin/casemate serve $(ARGS)

# The file is joined to its option: standing alone, one that is there from the last time would be taken for the place of tests.
test: lint
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) -m "not long and not gpu" --control-results=$(RESULTS) $(ARGS)

test-long: $(STAMPS)-dev-$(PINS)
	$(PYTEST) -m "long and not gpu" --timeout 3600 $(ARGS)

test-gpu: $(STAMPS)-dev-$(PINS)
	$(PYTEST) -m gpu --timeout 3600 $(ARGS)

.cache/interop/%/ready: tests/interop/%.txt
	@$(FIND_PYTHON); echo "Making an environment for $*"; "$$python" -m venv --clear .cache/interop/$*
	@.cache/interop/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

.cache/interop/javascript/ready: $(wildcard tests/interop/javascript/*)
.cache/interop/coding_agents/ready: $(wildcard tests/interop/coding_agents/*)
.cache/interop/javascript/ready .cache/interop/coding_agents/ready:
	@mkdir -p $(@D) && cp $^ $(@D)
	@if command -v npm >/dev/null; then cd $(@D) && npm ci --silent --no-audit --no-fund && touch ready; \
	else echo "npm is not installed: the clients in JavaScript are left out"; fi

INTEROP := langchain lm_eval anthropic litellm trestle judges model_signing javascript coding_agents
test-interop: $(STAMPS)-dev-$(PINS) $(INTEROP:%=.cache/interop/%/ready)
	CASEMATE_MODEL_SIGNING="$(CURDIR)/.cache/interop/model_signing/bin/model_signing" \
	$(PYTEST) tests/interop tests/integration/test_model_signing_interop.py --timeout 3600 $(ARGS)

lint: $(STAMPS)-dev-$(PINS)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) -c "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"

docs: $(STAMPS)-dev-$(PINS)
	@.venv/bin/casemate config explain --markdown > docs/configuration.md

demo-model: $(STAMPS)-dev-$(PINS)
	$(RUN) -m appliance.demo.train $(ARGS)

demo-eval: $(STAMPS)-dev-$(PINS)
	$(RUN) -m appliance.demo.evaluate $(ARGS)

.cache/uv-$(UV_VERSION)/bin/uv: | $(STAMPS)-dev-$(PINS)
	@echo "Installing uv $(UV_VERSION) into .cache"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target .cache/uv-$(UV_VERSION) uv==$(UV_VERSION)

check-constraints: .cache/uv-$(UV_VERSION)/bin/uv
	@$(RUN) constraints/resolve.py check $<

update-constraints: .cache/uv-$(UV_VERSION)/bin/uv
	@$(RUN) constraints/resolve.py update $<

image-lock: .cache/uv-$(UV_VERSION)/bin/uv
	$(RUN) -m image.lock wheels
	$(RUN) -m image.lock debs
	$(RUN) -m image.lock wheels-cuda .cache/uv-$(UV_VERSION)/bin/uv

image-fetch: $(STAMPS)-dev-$(PINS)
	@$(RUN) -m image.fetch

image: $(STAMPS)-dev-$(PINS)
	@$(RUN) -m image.build dist/casemate-cpu.tar

software: $(STAMPS)-dev-$(PINS)
	@rm -rf .cache/software
	@$(RUN) -m image.software .cache/software

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find appliance runtime security audit compliance image tests constraints -name __pycache__ -type d -prune -exec rm -rf {} +
