# What can be done with this project. `make help` lists it.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
GATEWAY := $(TARGET)/release/sallyport
# Seconds for each target of `make fuzz`.
FUZZ_SECONDS ?= 60

.PHONY: help build release run test lint fuzz bench load-test load-test-smoke clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: ## Install what the build needs and build the optimised program
	scripts/install-packages build
	$(CARGO) build --release --bin sallyport

release: ## Build the program for release, optimised by a profile of itself at work (about forty minutes)
	scripts/install-packages build test release
	scripts/get-consul $(TARGET)
	scripts/build-release $(TARGET)

run: build ## Build, then run the gateway with the defaults of conf/ beside a demo origin
	scripts/install-packages demo
	scripts/demo $(GATEWAY)

lint: ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

test: ## Install what tests need and run everything: lints, unit, golden, tidy, end to end
	scripts/install-packages build test
	scripts/make-venv $(TARGET)
	scripts/get-consul $(TARGET)
	scripts/make-node-tools $(TARGET)
	$(MAKE) lint
	$(CARGO) test

fuzz: ## Throw mutated input at the parsers, FUZZ_SECONDS each
	scripts/install-packages build
	SALLYPORT_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --test fuzz -- --nocapture

bench: ## Measure what a request, a compile and a swap pay
	scripts/install-packages build
	$(CARGO) bench --bench '*'

load-test: ## Measure the gateway beside nginx, HAProxy and bare Pingora (about forty minutes)
	scripts/install-packages build test
	scripts/get-consul $(TARGET)
	$(CARGO) build --release --workspace
	$(TARGET)/release/load-tests

load-test-smoke: ## The same in two minutes: fails if a request fails, never because of a time
	scripts/install-packages build test
	scripts/get-consul $(TARGET)
	$(CARGO) build --release --workspace
	$(TARGET)/release/load-tests --smoke

clean: ## Remove what was built
	$(CARGO) clean
