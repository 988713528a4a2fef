# Everything a developer does, one word each; `make` alone lists them.
#
# Two environments' worth of packages go into one .venv: what the demo needs, and on top of it the
# tools that judge a change. Stamp files remember what is installed, so a second run is instant.

PYTHON ?= python3

# torch comes first and by itself, so that nothing draws another build of it. Where pip would pick
# the CUDA build (gigabytes) and you have no GPU, name PyTorch's own index of CPU builds:
#   make demo TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch==2.13.0

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
DEMO_READY := .venv/.demo-ready
DEV_READY := .venv/.dev-ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List these targets
	@awk -F ': .*## ' '/^[a-z-]+: .*## /{printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(DEMO_READY) ## Start the real server with the demo model and tell a small story over gRPC
	@$(BIN)/ixc demo-model
	@$(BIN)/python clients/python/examples/demo.py

.PHONY: test
test: lint ## Everything CI runs: lint, types, imports, contract, all tests that need no GPU
	$(BIN)/python -m pytest -m "not gpu and not bench and not faults and not download"

.PHONY: check
check: lint ## The fast part of `test`: lint, types, imports, contract, unit tests
	$(BIN)/python -m pytest tests/unit tests/contract -m "not demo and not gpu and not bench" -q

# The contract's own checks (buf, drift of the stubs) are tests, in tests/contract.
.PHONY: lint
lint: $(DEV_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: fix
fix: $(DEV_READY) ## Mend what can be mended: format, lint with safe fixes, regenerate the stubs
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write
	$(BIN)/python protos/generate.py

.PHONY: protos
protos: $(DEV_READY) ## Regenerate the Python stubs from protos/ixc/v1
	$(BIN)/buf lint
	$(BIN)/python protos/generate.py

.PHONY: faults
faults: $(DEV_READY) ## The long fault tests: kills, cuts, stopped readers, 10,000 odd requests
	$(BIN)/python -m pytest tests/faults -m "not download" -s

.PHONY: hostile-media
hostile-media: $(DEV_READY) ## Send Pillow's own broken and malicious test images, fetched for it, to a server
	$(BIN)/python -m pytest tests/faults/test_hostile_media.py -s

.PHONY: bench
bench: $(DEV_READY) ## Measure speed on this CPU beside transformers; JSON goes to tests/bench/results
	$(BIN)/python -m tests.bench.cpu_speed
	$(BIN)/python -m tests.bench.front_end_speed
	$(BIN)/python -m tests.bench.chat_beside_job

.PHONY: gpu-test
gpu-test: $(DEV_READY) ## Tests that need a CUDA device: kernels, the engine, the recorded outputs
	$(BIN)/python -m pytest tests/gpu -m gpu
	$(BIN)/python -m pytest tests/parity --device cuda -m "not demo"

# Where the 7B model's random weights go: 22 GB, and 20 more for what is made of them.
FULL_SIZE ?= /tmp/ixc-full-size

.PHONY: bench-gpu
bench-gpu: $(DEV_READY) ## Measure kernels, jobs and the engine at full size on this GPU
	$(BIN)/python -m tests.bench.kernel_speed
	$(BIN)/python -m tests.bench.weights_speed --folder $(FULL_SIZE)
	$(BIN)/python -m tests.bench.engine_speed $(FULL_SIZE)/source --only load,decode,prefill,picture,long,grpc
	$(BIN)/python -m tests.bench.plot --results tests/bench/results/engine_speed.json

.PHONY: kernels
kernels: $(DEV_READY) ## Compile every kernel, without a GPU, and list registers and shared memory
	$(BIN)/python -m ixc_cuda

.venv/bin/python:
	@$(PYTHON) -m venv .venv

$(DEMO_READY): pyproject.toml | .venv/bin/python
	@echo "installing the server and what builds the demo model into .venv (about a minute)"
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install $(TORCH)
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(DEV_READY): $(DEMO_READY)
	@echo "installing the development tools into .venv"
	@$(PIP) install --group dev
	@touch $@
