# Everything runs in .venv, made from pyproject.toml, .constraints.txt (exact versions) and .requirements.txt (hashes of
# what is fetched). `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE :=
export DVC_NO_ANALYTICS := 1

.PHONY: help install zoo look test lint ui server s3 bench bench-scale chaos clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## make .venv and install weightzoo into it

$(INSTALLED): pyproject.toml .constraints.txt .requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "weightzoo needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "installing into $(VENV) (a few minutes, mostly PyTorch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes --no-deps --requirement .requirements.txt
	@$(BIN)/python -m pip install --quiet --no-compile --constraint .constraints.txt --editable '.[dev]'
	@touch $@

zoo: $(INSTALLED)  ## build the zoos that params.yaml lists under `build`
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true
	@dvc repro
	@weightzoo summary

look: $(INSTALLED)  ## build them with a quick analysis, for a first look; `make zoo` then does the rest
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true
	@dvc repro assemble
	@for zoo in $$(python -c 'import weightzoo; print(*weightzoo.load_params().build)'); do \
	  weightzoo analyse $$zoo --quick >/dev/null && weightzoo report $$zoo || exit 1; done
	@weightzoo summary

test: $(INSTALLED)  ## run the tests
	@python -m pytest -q -n 2 --dist loadfile

lint: $(INSTALLED)  ## style, types and the direction of imports
	@ruff check .
	@ruff format --check src tests pipelines
	@pyright
	@lint-imports

ui: $(INSTALLED)  ## MLflow's user interface on mlruns, at http://127.0.0.1:5000
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "a server shows it: $$(weightzoo tracking-uri)"; exit;; esac; \
	  endpoint=$$(dvc config remote.runs.endpointurl 2>/dev/null); \
	  if [ -n "$$endpoint" ]; then export MLFLOW_S3_ENDPOINT_URL="$${MLFLOW_S3_ENDPOINT_URL:-$$endpoint}"; fi; \
	  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-sqlite:///mlruns/mlflow.db}"; \
	  mlflow ui --host 127.0.0.1 --port $${PORT:-5000} --workers 1

server: $(INSTALLED)  ## PostgreSQL, S3 and MLflow with authentication on this machine, in .server, until Ctrl-C
	@python -m tests.servers.stack

s3: $(INSTALLED)  ## an S3 server alone on this machine, with the bucket zoos, in .server, until Ctrl-C
	@python -m tests.servers.stack s3

bench: $(INSTALLED)  ## measure the engines against each other, into reports/bench
	@python -m tests.benchmarks.engines

bench-scale: $(INSTALLED)  ## measure what is promised of large stores, into reports/bench/scale.json
	@python -m tests.benchmarks.scale

chaos: $(INSTALLED)  ## damage 1,000 files, kill 200 times, fill disks, and see that nothing is lost: half an hour to an hour
	@python -m tests.chaos.corruption
	@python -m tests.chaos.kills
	@python -m tests.chaos.disks

clean:  ## remove what builds made: data, zoos, reports (mlruns and .downloads stay)
	@rm -rf data zoos reports
