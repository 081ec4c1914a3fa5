# `make` alone lists the targets.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BERTH := $(TARGET_DIR)/release/berth
HOST := x86_64-unknown-linux-gnu

# PID 1 is static. The slot picker is a UEFI program: position-independent, without the C library,
# and without a red zone, because firmware interrupts share its stack.
INIT_FLAGS := -C target-feature=+crt-static
BOOT_FLAGS := -C relocation-model=pic -C no-redzone=y

DEMO := --set name=demo --set 'images=["containers/nginx.toml","containers/postgres.toml"]'

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: build
build: guest ## Build berth and the programs that run on the host
	$(CARGO) build --release -p image-builder

.PHONY: guest
guest:
	RUSTFLAGS="$(INIT_FLAGS)" $(CARGO) build --profile guest --target $(HOST) -p init
	RUSTFLAGS="$(BOOT_FLAGS)" $(CARGO) build --profile guest --target $(HOST) -p boot --target-dir $(TARGET_DIR)/boot
	mkdir -p $(TARGET_DIR)/release/guest
	cp $(TARGET_DIR)/$(HOST)/guest/init $(TARGET_DIR)/boot/$(HOST)/guest/boot $(TARGET_DIR)/release/guest/

.PHONY: run
run: build ## Build the demonstration image, boot it, print the address that answers
	$(BERTH) build configs/docker.toml $(DEMO)
	$(BERTH) run out/demo-1.0.0.raw -p 8080:8080 --host-config configs/demo/host.toml

.PHONY: test
test: build ## Everything: unit, property, snapshot tests and virtual machines
	$(CARGO) test --release

.PHONY: check
check: ## Fast: format, lints, unit tests
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) test --release --lib --bins

.PHONY: bench
bench: build ## Measure what docs/performance.md states
	tests/bench.sh $(BERTH)
