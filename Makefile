# One command each, on a machine with Python 3.11 and make: every target makes .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
AUDIOCRAFT := $(shell sed -n 's/^ *- *pip \(install --no-deps .*\)$$/\1/p' cog.yaml)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format bench serve schema licences audit train-tiny clean

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

schema: $(VENV)/runtime
	$(BIN)/python -m scripts.openapi_schema

licences: $(VENV)/dev
	$(BIN)/python scripts/licences.py
	$(BIN)/python scripts/licences.py --sbom sbom.json

# asks a service on the network
audit: $(VENV)/dev
	$(BIN)/python -m scripts.audit

train-tiny: $(VENV)/runtime
	$(BIN)/python -m training.tiny.codec
	$(BIN)/python -m training.tiny.lm encode
	$(BIN)/python -m training.tiny.lm train
	$(BIN)/python -m training.tiny.export

clean:
	rm -rf $(VENV) .cog demo loops

$(VENV)/runtime: requirements.txt pyproject.toml cog.yaml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed (make PYTHON=/path/to/python3.11)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip $(AUDIOCRAFT) --quiet
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/dev: $(VENV)/runtime
	$(BIN)/pip install --quiet $$($(BIN)/python -c "import tomllib; print(' '.join(tomllib.load(open('pyproject.toml','rb'))['project']['optional-dependencies']['dev']))")
	touch $@
