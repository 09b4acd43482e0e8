# The two commands of the README, and a few for those who work on it. Each does its own set-up.

.PHONY: run test build release bench lint

run: ## builds and starts the demo: a gateway on 127.0.0.1:8080 with small backends behind it
	scripts/setup.sh
	cargo run --quiet --bin goma -- demo

test: ## runs every test
	scripts/setup.sh test
	scripts/oidc.sh
	scripts/cache_suite.sh
	cargo test

build:
	scripts/setup.sh
	cargo build

release:
	scripts/setup.sh
	cargo build --release

bench: ## micro benchmarks
	scripts/setup.sh bench
	cargo bench

lint: ## what CI asks for beside the tests
	scripts/setup.sh
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
