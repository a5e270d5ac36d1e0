.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-pyannote test-s3 fuzz check fmt bench accuracy lock samples models ffmpeg clean

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ffmpeg ## Make the environment: Python packages, ffmpeg, model weights
	@$(BIN)/greenroom models

demo: setup ## Take in two avatars from a local origin and show their verdicts and events
	@$(BIN)/greenroom demo

dev: setup ## Run the whole service on this machine
	@$(BIN)/greenroom dev

test: setup ## Every test: real Postgres, ffmpeg, models and HTTP
	$(BIN)/pytest -n $(or $(JOBS),2) --dist worksteal

test-pyannote: ffmpeg ## The second engine for voices, in an environment with torch
	@sh tools/test_pyannote.sh $(PYTHON) .venv-pyannote

test-s3: setup ## The store on a real S3 server: Ceph, from Debian's packages
	@sh tools/test_s3.sh $(BIN)/python

fuzz: setup ## Hostile input for long: urls, bodies, FILES=2000 broken media, and a store that fails
	HYPOTHESIS_PROFILE=long $(BIN)/pytest tests/fuzz --timeout 0
	$(BIN)/python -m tests.fuzz.soak --files $(or $(FILES),2000) --seed $(or $(SEED),1) \
	  --out $(or $(OUT),build/fuzz-report.json)
	$(BIN)/python -m tests.fuzz.store_soak --seed $(or $(SEED),1) --out build/store-soak.json

check: setup ## Style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup ## Repair what can be repaired by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## What an inspection costs, beside plain decoding and beside a peer
	@$(BIN)/python -m bench

accuracy: setup ## How often verdicts are wrong on the labelled media in GREENROOM_CORPUS; SERIES=1 for more
	@$(BIN)/python -m tools.accuracy $(if $(SERIES),--series)

samples: setup ## Make samples/ again from its public-domain sources
	$(BIN)/python tools/make_samples.py

lock: ## Pin every dependency again; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev \
	  -c constraints.txt --custom-compile-command "make lock" --quiet pyproject.toml -o requirements.lock

clean: ## Forget the environment
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "greenroom: needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing pinned packages (about 200 MB, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

ffmpeg:
	@command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing ffmpeg"; apt-get update -qq && apt-get install -y -qq --no-install-recommends ffmpeg >/dev/null; \
	  elif command -v brew >/dev/null; then brew install ffmpeg; \
	  else echo "greenroom: install ffmpeg first (Debian: sudo apt-get install ffmpeg)"; exit 1; fi; }
