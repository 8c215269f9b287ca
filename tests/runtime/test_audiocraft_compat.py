"""audiocraft is imported, and music made, where PyAV is not installed."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from looper.runtime import audiocraft_compat

ROOT = Path(__file__).parents[2]
GPL = ("av", "imageio_ffmpeg", "mutagen")
WITHOUT = f"""
import sys
for name in {GPL}:
    sys.modules[name] = None  # importing it is an ImportError, as where it is not installed
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_music_is_made_where_nothing_under_the_gpl_is_installed(tmp_path):
    out = run(f"""
import looper
from audiocraft.data import audio, audio_utils  # before anything of ours has imported it
from looper.export.loop_files import write_all
import pathlib
loops = looper.LoopMaker.load("tiny", "cpu").make(
    looper.LoopRequest(prompt="house", bpm=124, variations=1, max_duration=2, seed=1))
print(*write_all(loops, pathlib.Path({str(tmp_path)!r}), "mp3"))
assert sys.modules.get("av") is None, "the stand-in stayed"
try:
    audio.audio_read("x.m4a")
except AttributeError as error:
    print(error)
""")
    assert len(list(tmp_path.glob("*.mp3"))) == 1
    assert "av.open: audiocraft's reading of files needs PyAV" in out and "soundfile" in out


@pytest.mark.parametrize("package", ["looper", "bench", "training", "testkit", "tests.conftest", "predict"])
def test_whatever_imports_audiocraft_finds_the_way_prepared(package):
    print_it = "print(any(type(f).__module__ == 'looper.runtime.audiocraft_compat' for f in sys.meta_path))"
    assert run(f"import {package}\n{print_it}") == "True\n"


def test_every_file_that_imports_audiocraft_is_in_such_a_package():
    folders = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")]
    files = [f for folder in folders for f in folder.rglob("*.py")] + list(ROOT.glob("*.py"))
    importing = {f.relative_to(ROOT).parts[0] for f in files if "\nimport audiocraft" in f.read_text()}
    importing |= {f.relative_to(ROOT).parts[0] for f in files if "from audiocraft" in f.read_text()}
    assert importing <= {"looper", "bench", "testkit", "training", "tests"}


def test_where_pyav_is_installed_it_is_left_alone(monkeypatch):
    real = ModuleType("av")
    monkeypatch.setitem(sys.modules, "av", real)
    with audiocraft_compat._av_or_stand_in():
        assert sys.modules["av"] is real
    assert sys.modules["av"] is real


def test_a_failed_import_leaves_no_stand_in_behind(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ZeroDivisionError), audiocraft_compat._av_or_stand_in():
        assert isinstance(sys.modules["av"], audiocraft_compat.NoAv)
        raise ZeroDivisionError
    assert not isinstance(sys.modules.get("av"), audiocraft_compat.NoAv)


def test_the_way_is_prepared_once():
    before = list(sys.meta_path)
    audiocraft_compat.install()
    assert sys.meta_path == before
