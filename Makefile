# What people type.  The work is done in tools/.

# The interpreter that .venv is made with, 3.11 or newer.
PYTHON ?= python3
export PYTHON

# Seconds that `make fuzz` shares out among the fuzzers.
FUZZ_TIME ?= 60

# Tests of one module run in order, modules side by side: one more than there are processors, as they often wait.
PARALLEL = -n $(shell expr $$(nproc) + 1) --dist loadscope
export PARALLEL

.PHONY: help demo test test-unprivileged test-slow lint fuzz sanitize bench man kernel clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 28

demo: ## two guests on one switch, from nothing: sets everything up, then runs `umlab demo`
	@tools/setup demo
	@.venv/bin/umlab demo

# pytest's summary of the main run comes last; as root, the other user's run comes before it, and has had what is
# the same for both.
test: ## every test that is not slow; as root, the integration tests as a plain user as well
	@tools/setup test
	@if [ "$$(id -u)" != 0 ]; then exec .venv/bin/python -m pytest $(PARALLEL); fi; \
		tools/test-unprivileged && \
		.venv/bin/python -m pytest $(PARALLEL) -m "not slow and (needs_root or not any_user)"

test-unprivileged: ## the integration tests as the user nobody (root only)
	@tools/setup test
	@tools/test-unprivileged

test-slow: ## the slow tests
	@tools/setup test
	@.venv/bin/python -m pytest -m slow

lint: ## ruff and mypy
	@tools/setup lint
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

fuzz: ## every fuzzer for its share of FUZZ_TIME=60 seconds
	@tools/setup fuzz
	@tools/fuzz $(FUZZ_TIME)

sanitize: ## the native engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/setup test
	@tools/sanitize

bench: ## every benchmark
	@tools/setup bench
	@set -e; for bench in tests/bench/bench_*.py; do echo "$$bench"; .venv/bin/python $$bench; done

man: ## the manual pages, in build/man
	@tools/setup demo
	@.venv/bin/python tools/man build/man

kernel: ## the kernel vector-6.12 of some tests, without the legacy transports (about 8 minutes)
	@tools/setup kernel
	@.venv/bin/umlab kernel ls --json | grep -q '"name": "vector-6.12"' || \
		.venv/bin/umlab kernel build --name vector-6.12 --config tools/vector-kernel.config

clean: ## remove .venv, caches and build output
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f src/umlab/engine/_native/*.so src/umlab/engine/_native/unbuilt.txt
	find src tests -name __pycache__ -prune -exec rm -rf {} +
