# One command each, on a machine with Python 3.11 and make: every target makes .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
AUDIOCRAFT := $(shell sed -n 's/^ *- *\(echo audiocraft.*\)$$/\1/p' cog.yaml)
PIP_LOCKED := $(BIN)/python scripts/lock.py --print
INSTALL := $(BIN)/python -m pip install --quiet --require-hashes --no-deps
WORKERS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# else each of the tests' many processes would compile the package for itself
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-js check fuzz mutate docs lint format bench serve wheel schema licences audit lock train-tiny train-beats clean

demo: $(VENV)/runtime
	@$(BIN)/looper make "deep house, warm bass" --bpm 124 --variations 4 --model tiny --seed 1 --out demo
	@echo "Listen: the four loops are in demo/"

# everything, in two processes; the tests of a file stay together, and of the files on one server: tests/conftest.py sees to
# that (xdist 3.8 has no groups under pytest 9)
test: $(VENV)/dev lint test-js
	$(BIN)/python -m scripts.openapi_schema --check
	$(BIN)/python -m pytest $(WORKERS)

# under a minute: no server, no browser, nothing slow
check: $(VENV)/dev lint
	$(BIN)/python -m scripts.openapi_schema --check
	$(BIN)/python -m pytest $(WORKERS) -m "not server and not browser and not slow"

docs: $(VENV)/dev
	$(BIN)/python -m pip install --quiet $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# the page's reader, by node's own test runner; RUNS=100000 looks longer
test-js:
	@command -v node >/dev/null || { echo "node is not here: the page's reader is not tested"; exit 0; } && \
	cd tests/web/js && npm ci --silent --no-audit --no-fund && node --experimental-default-type=module --no-warnings --test

# looks for what the suite's few seconds miss, other examples every time, and keeps what it finds in tests/fuzz/found
MINUTES ?= 60
fuzz: $(VENV)/dev
	$(BIN)/python -m scripts.fuzz --minutes $(MINUTES)

# how many small mistakes the tests would notice; MODULES="looper/request.py" looks at those alone
MUTANTS ?= 20
mutate: $(VENV)/dev
	$(BIN)/python -m scripts.mutate --mutants $(MUTANTS) $(MODULES)

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# CLIPS=DIR adds what needs labelled clips (training.clips.render makes some), MUSICGEN=DIR what needs
# MusicGen's music with trackers' bar lines (training.bar_labels says how it is described)
bench: $(VENV)/dev
	$(BIN)/python -m bench.speed.decode
	$(BIN)/python -m bench.speed.predict
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.speed.post_processing
	$(BIN)/python -m bench.quality.loop_lengths
	$(BIN)/python -m bench.quality.seam_likelihood
	$(if $(CLIPS),$(BIN)/python -m bench.quality.beats --set $(CLIPS))
	$(if $(MUSICGEN),$(BIN)/python -m bench.quality.requests --set $(MUSICGEN))
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

# needs fluidsynth with fluid-soundfont-gm and timgm6mb-soundfont, and MUSICGEN=DIR as for bench
BEATS := training/work/beats
train-beats: $(VENV)/dev
	@test -d "$(MUSICGEN)" || { echo "say where MusicGen's music is: make train-beats MUSICGEN=folder"; exit 1; }
	$(BIN)/python -m training.clips.render --out $(BEATS)/fit-11 --count 1500 --seed 11
	$(BIN)/python -m training.clips.render --out $(BEATS)/fit-12 --count 1500 --seed 12
	$(BIN)/python -m training.clips.render --out $(BEATS)/held --count 300 --seed 13
	OMP_NUM_THREADS=1 $(BIN)/python -m training.downbeats --fit $(BEATS)/fit-11 $(BEATS)/fit-12 \
		--held $(BEATS)/held --generated $(MUSICGEN) --work $(BEATS) --jobs 2

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
