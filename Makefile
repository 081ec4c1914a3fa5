# `make` alone lists the targets.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BERTH := $(TARGET_DIR)/release/berth
HOST := x86_64-unknown-linux-gnu

# Paths of this machine stay out of what runs on the host.
REMAP := --remap-path-prefix=$(CURDIR)=/berth --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=/registry

DEMO := --set name=demo --set 'images=["containers/nginx.toml","containers/postgres.toml"]'

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: build
build: guest ## Build berth and the programs that run on the host
	$(CARGO) build --release -p image-builder

# The slot picker has a folder of its own: other flags in the same one would have cargo build everything
# anew each time.
.PHONY: guest
guest:
	RUSTFLAGS="$(REMAP) -C target-feature=+crt-static" $(CARGO) build --profile guest --target $(HOST) -p init -p updater --bins
	RUSTFLAGS="$(REMAP)" $(CARGO) build --profile guest --target $(HOST) -p boot --features efi --target-dir $(TARGET_DIR)/boot
	mkdir -p $(TARGET_DIR)/release/guest
	cd $(TARGET_DIR)/$(HOST)/guest && cp init berth-updater $(abspath $(TARGET_DIR))/release/guest/
	cp $(TARGET_DIR)/boot/$(HOST)/guest/boot $(TARGET_DIR)/release/guest/

.PHONY: run
run: build ## Build the demonstration image, boot a copy of it, print the address that answers
	$(BERTH) build configs/docker.toml $(DEMO)
	cp --update --sparse=always out/demo-1.0.0.raw out/demo-disk.raw
	$(BERTH) run out/demo-disk.raw -p 8080:8080 --host-config configs/demo/host.toml

.PHONY: demo-update
demo-update: build ## Watch a host update itself, and undo a release that does not work
	$(CARGO) run --release -p e2e --bin demo-update

.PHONY: proof
proof: build ## The long form of the power cuts: every state of the disk, and real pulled plugs
	BERTH_PROOF=full $(CARGO) test --release -p updater --test power_cut -- --nocapture
	BERTH_PROOF=full $(CARGO) test --release -p e2e --test scenarios plugs:: -- --nocapture

# `cargo test` builds `berth` as well. One scenario more at a time than there are processors: some wait for
# most of their time.
.PHONY: test
test: guest ## Everything: unit, property, snapshot tests and virtual machines
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) $(CARGO) test --release --no-fail-fast

.PHONY: check
check: ## Fast: format, lints, unit tests
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) clippy --release -p boot --all-targets -- -D warnings
	$(CARGO) clippy --profile guest -p boot --features efi -- -D warnings
	$(CARGO) test --release --lib --bins
	$(CARGO) test --release -p boot

.PHONY: fuzz
fuzz: ## A million inputs for everything that reads what others wrote
	$(CARGO) run --profile fuzz -p fuzz --bin many

.PHONY: bench
bench: build ## Measure what docs/performance.md states; ONLY="update peer" PEER=IMAGE
	RUSTFLAGS="$(REMAP) -C target-feature=+crt-static" $(CARGO) build --profile guest --target $(HOST) \
		-p updater --features bench --bin on-files
	cp $(TARGET_DIR)/$(HOST)/guest/on-files $(TARGET_DIR)/release/guest/
	PEER="$(PEER)" $(CARGO) run --release -p e2e --bin bench -- $(ONLY)

.PHONY: tuf-conformance
tuf-conformance: ## Run the TUF project's suite in TUF_CONFORMANCE=PATH against our client
	$(CARGO) build --release -p updater --example tuf-conformance
	cd $(TUF_CONFORMANCE) && $(or $(PYTHON),python3) -m pytest tuf_conformance \
		--entrypoint $(abspath $(TARGET_DIR))/release/examples/tuf-conformance
