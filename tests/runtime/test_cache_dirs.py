"""What libraries write on the side stays in the temp folder."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from looper.runtime import cache_dirs

LIBROSA = """
import os
from looper.runtime.cache_dirs import keep_in_temp_folder
access, os.access = os.access, lambda *a: False  # what a read-only file system says
print(keep_in_temp_folder())
os.access = access
import numba
# each of librosa's functions for one kind of numbers, where it takes up to five: their compiling is most of this
one_kind = lambda compiler: lambda kinds, *more, **how: compiler(kinds[-1:], *more, **how)
numba.vectorize, numba.guvectorize = one_kind(numba.vectorize), one_kind(numba.guvectorize)
import librosa, matplotlib.font_manager, numpy
librosa.util.localmax(numpy.random.default_rng(0).normal(size=1000))
"""


@pytest.fixture
def temp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for variable in (*cache_dirs.FOLDERS, cache_dirs.NUMBA):
        monkeypatch.setenv(variable, "")  # so that it is put back afterwards
    return tmp_path


def test_every_cache_is_below_one_private_folder_that_the_next_process_shares(temp, monkeypatch):
    folder = cache_dirs.keep_in_temp_folder()
    assert folder.parent == temp and folder.stat().st_mode & 0o777 == 0o700
    for variable in cache_dirs.FOLDERS:
        assert Path(os.environ[variable]).is_dir() and Path(os.environ[variable]).parent == folder
        monkeypatch.setenv(variable, "")
    assert cache_dirs.keep_in_temp_folder() == folder


@pytest.mark.parametrize("writable", [True, False])
def test_what_numba_compiled_before_is_used_where_it_can_be(temp, monkeypatch, writable):
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    folder = cache_dirs.keep_in_temp_folder()
    assert os.environ[cache_dirs.NUMBA] == ("" if writable else str(folder / "numba"))


def test_what_the_environment_says_stays(temp, monkeypatch):
    monkeypatch.setenv("MPLCONFIGDIR", "/elsewhere")
    cache_dirs.keep_in_temp_folder()
    assert os.environ["MPLCONFIGDIR"] == "/elsewhere"


@pytest.mark.parametrize("planted", ["open to others", "a link", "a file"])
def test_a_folder_that_somebody_else_may_have_filled_is_not_used(temp, planted):
    place = temp / f"{cache_dirs.PREFIX}{os.getuid()}"
    (temp / "theirs").mkdir()
    if planted == "open to others":
        place.mkdir()
        place.chmod(0o777)
    elif planted == "a link":
        place.symlink_to(temp / "theirs")
    else:
        place.write_text("")
    folder = cache_dirs.keep_in_temp_folder()
    assert folder.parent == temp and folder != place and folder.stat().st_mode & 0o777 == 0o700
    assert not list((temp / "theirs").iterdir())


def test_a_folder_of_another_user_is_not_used(temp, monkeypatch):
    (temp / f"{cache_dirs.PREFIX}4242").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert cache_dirs.keep_in_temp_folder().name != f"{cache_dirs.PREFIX}4242"


@pytest.mark.slow
def test_librosa_and_matplotlib_need_no_home_and_write_where_they_are_told_to(tmp_path):
    clean = {k: v for k, v in os.environ.items() if k not in (*cache_dirs.FOLDERS, cache_dirs.NUMBA)}
    done = subprocess.run(
        [sys.executable, "-c", LIBROSA],
        env={**clean, "HOME": "/dev/null/nowhere", "TMPDIR": str(tmp_path), "NUMBA_OPT": "0"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path
    assert list((folder / "numba").rglob("*.nbi"))
    assert list((folder / "matplotlib").glob("fontlist*.json"))
