"""The scripts in examples/ do what they say."""

from __future__ import annotations

import json
import runpy
import sys
import zipfile

import pytest
import soundfile
from PIL import Image

from looper.pipeline.maker import LoopMaker
from looper.runtime import paths
from testkit.fakes import FakeGenerator, drum_track

EXAMPLES = paths.PROJECT / "examples"


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "jam.wav"
    soundfile.write(path, drum_track(118.0, 12), 32000)
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    def script(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def test_a_loop_out_of_a_recording_has_the_samples_of_its_tempo(run, recording, tmp_path):
    said = run("loop_from_recording.py", recording, 120, tmp_path / "loop.wav")
    assert "4 bars at 120 BPM, played at 118.0" in said
    assert soundfile.info(tmp_path / "loop.wav").frames == 16 * 16000


@pytest.mark.slow
def test_a_beat_grid_is_drawn(run, recording, tmp_path):
    assert "at 118.0" in run("beat_grid_picture.py", recording, 118, tmp_path / "jam.png")
    with Image.open(tmp_path / "jam.png") as picture:
        assert picture.width >= 1000


@pytest.mark.slow
def test_every_prompt_becomes_a_pack(run, tmp_path, monkeypatch):
    monkeypatch.setattr(LoopMaker, "load", lambda model: LoopMaker(FakeGenerator()))
    more = ("--variations", 2, "--max-duration", 2, "--bpm", 126, "--out", tmp_path)
    archives = run("pack.py", "deep house", "boom bap", *more).split()
    assert len(archives) == 2
    for archive, prompt in zip(archives, ("deep house", "boom bap"), strict=True):
        with zipfile.ZipFile(archive) as pack:
            (description,) = [name for name in pack.namelist() if name.endswith(".json")]
            told = json.loads(pack.read(description))
            assert told["prompt"] == prompt and len(told["loops"]) == 2


def test_no_example_goes_untested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "pack.py",
        "loop_from_recording.py",
        "beat_grid_picture.py",
    }
