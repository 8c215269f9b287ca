# One command each, on a machine with Python 3.11 and make: every target makes .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
AUDIOCRAFT := $(shell sed -n 's/^ *- *\(echo audiocraft.*\)$$/\1/p' cog.yaml)
PIP_LOCKED := $(BIN)/python scripts/lock.py --print
INSTALL := $(BIN)/python -m pip install --quiet --require-hashes --no-deps
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format bench serve wheel schema licences audit lock train-tiny clean

demo: $(VENV)/runtime
	@$(BIN)/looper make "deep house, warm bass" --bpm 124 --variations 4 --model tiny --seed 1 --out demo
	@echo "Listen: the four loops are in demo/"

test: $(VENV)/dev lint
	$(BIN)/python -m scripts.openapi_schema --check
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# CLIPS=DIR adds what needs labelled clips (training.clips.render makes some)
bench: $(VENV)/dev
	$(BIN)/python -m bench.speed.decode
	$(BIN)/python -m bench.speed.predict
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.speed.post_processing
	$(BIN)/python -m bench.quality.loop_lengths
	$(BIN)/python -m bench.quality.seam_likelihood
	$(if $(CLIPS),$(BIN)/python -m bench.quality.beats --set $(CLIPS))
	$(if $(CLIPS),$(BIN)/python -m bench.quality.seams --clips $(CLIPS) --tiny 20)

serve: $(VENV)/runtime
	$(BIN)/looper serve --tiny

wheel: $(VENV)/runtime
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

schema: $(VENV)/runtime
	$(BIN)/python -m scripts.openapi_schema

licences: $(VENV)/dev
	$(BIN)/python scripts/licences.py
	$(BIN)/python scripts/licences.py --sbom sbom.json

# asks a service on the network
audit: $(VENV)/dev
	$(BIN)/python -m scripts.audit

train-tiny: $(VENV)/dev
	$(BIN)/python -m training.tiny.codec
	$(BIN)/python -m training.tiny.lm encode
	$(BIN)/python -m training.tiny.lm train
	$(BIN)/python -m training.tiny.export

clean:
	rm -rf $(VENV) $(VENV)-lock .cog demo loops build dist

# chooses versions anew where pyproject.toml asks for others; UPGRADE=--upgrade: the newest
lock:
	test -x $(VENV)-lock/bin/python || $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv packaging
	$(VENV)-lock/bin/python scripts/lock.py $(UPGRADE)

$(VENV)/runtime: requirements.lock pyproject.toml cog.yaml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed (make PYTHON=/path/to/python3.11)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_LOCKED) image desk | $(INSTALL) --requirement /dev/stdin
	PATH="$(abspath $(BIN)):$$PATH" PIP_QUIET=1 sh -c '$(AUDIOCRAFT)'
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev: $(VENV)/runtime
	$(PIP_LOCKED) image desk dev | $(INSTALL) --requirement /dev/stdin
	touch $@
