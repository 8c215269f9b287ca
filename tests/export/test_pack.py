"""A pack's folder and zip: whole or not there, and never over another one."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import soundfile

from looper.export.loop_files import FileStyle
from looper.export.pack import check_room, write_loops, write_pack
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from testkit.fakes import FakeGenerator

WISH = LoopRequest("boom bap", bpm=90.5, variations=2, max_duration=6, seed=3)


@pytest.fixture(scope="module")
def loops():
    return LoopMaker(FakeGenerator()).make(WISH)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_folder_and_zip_hold_the_same(loops, tmp_path, format):
    made = write_pack(loops, tmp_path, format)
    with zipfile.ZipFile(made["zip"]) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    folder = made["folder"]
    assert inside == {f"{folder.name}/{file.name}": file.read_bytes() for file in folder.iterdir()}
    assert [row["bpm"] for row in json.loads((folder / "pack.json").read_text())["loops"]] == [90.5, 90.5]


def test_what_is_written_is_found_taken_before_the_next_work(loops, tmp_path):
    check_room(WISH, tmp_path / "not there")
    check_room(WISH, tmp_path)
    write_loops(loops, tmp_path, FileStyle(), pack=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="is there already"):
        check_room(WISH, tmp_path)
    with pytest.raises(FileExistsError, match="is there already"):
        write_pack(loops, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("boom-bap_90.5bpm_2bars_s3", True),
        ("boom-bap_90.5bpm_2bars_Bbmin_s3.zip", True),
        ("boom-bap_90.5bpm_2bars_Amaj_s3", True),
        ("boom-bap_90.5bpm_4bars_s3", False),
        ("boom-bap_90.5bpm_2bars_s33", False),
        ("boom-bap_9005bpm_2bars_s3", False),
        ("boom-bap_90.5bpm_2bars_s3_01.wav", False),
    ],
)
def test_only_a_pack_of_the_same_wish_takes_the_name(tmp_path, name, taken):
    (tmp_path / name).mkdir()
    if taken:
        with pytest.raises(FileExistsError, match="choose another folder or seed"):
            check_room(WISH, tmp_path)
    else:
        check_room(WISH, tmp_path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_zip_that_fails_takes_its_folder_with_it(loops, tmp_path, monkeypatch, error):
    link = os.link

    def fail(source, target):
        if str(target).endswith(".zip"):
            raise error
        link(source, target)

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(type(error)):
        write_pack(loops, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_two_packs_of_one_name_at_once_one_is_whole_and_the_other_is_told_so(loops, tmp_path, monkeypatch):
    found = os.path.lexists
    barrier = threading.Barrier(2, timeout=60)

    def both_look_first(path):
        there = found(path)
        if str(path).endswith(".zip"):
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait()
        return there

    monkeypatch.setattr("looper.export.pack.os.path.lexists", both_look_first)

    def one(_):
        try:
            return write_pack(loops, tmp_path)["zip"]
        except FileExistsError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        made, said = sorted(pool.map(one, range(2)), key=str, reverse=True)
        made, said = (said, made) if isinstance(made, str) and "already" in made else (made, said)
    assert "is there already: remove it" in str(said)
    with zipfile.ZipFile(made) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 3
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted([".zip", made.with_suffix("").suffix])


@pytest.mark.slow
def test_a_description_is_utf_8_in_every_locale(tmp_path):
    code = (
        "import pathlib, sys; from dataclasses import replace\n"
        "from looper.export.pack import write_pack\n"
        "from looper.request import LoopRequest; from testkit.fakes import FakeMaker\n"
        "wish = LoopRequest('\\u30c9\\u30e9\\u30e0', bpm=90, variations=1, max_duration=6, seed=3)\n"
        "write_pack(FakeMaker().make(wish), pathlib.Path(sys.argv[1]))"
    )
    plain = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=280, env=plain)
    (told,) = tmp_path.glob("*/pack.json")
    assert json.loads(told.read_text(encoding="utf-8"))["prompt"] == "ドラム"


def test_a_full_disk_is_said_of_the_folder_that_was_asked_for(loops, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("os.fsync", "pathlib.Path.write_text", "zipfile.ZipFile.write", "tempfile.mkdtemp"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(OSError, match="No space left on device") as caught:
                write_pack(loops, tmp_path / "new")
        assert caught.value.strerror.startswith(f"cannot write to {tmp_path / 'new'}: No space")
        assert list(tmp_path.iterdir()) == []


def test_a_tempo_close_to_another_is_another_pack(tmp_path):
    wish = lambda bpm: LoopRequest("boom bap", bpm=bpm, max_duration=6, seed=3)
    (tmp_path / "boom-bap_90.50001bpm_2bars_s3").mkdir()
    check_room(wish(90.50049), tmp_path)
    with pytest.raises(FileExistsError):
        check_room(wish(90.50001), tmp_path)


@pytest.mark.parametrize(
    ("format", "subtype"), [("wav", "PCM_24"), ("flac", "PCM_24"), ("mp3", "MPEG_LAYER_III")]
)
def test_a_packs_samples_have_24_bits_unless_somebody_chooses(loops, tmp_path, format, subtype):
    made = write_pack(loops, tmp_path, format)["folder"]
    assert {soundfile.info(file).subtype for file in made.glob(f"*.{format}")} == {subtype}
    if format == "wav":
        chosen = write_pack(loops, tmp_path / "16", subtype="PCM_16")["folder"]
        assert {soundfile.info(file).subtype for file in chosen.glob("*.wav")} == {"PCM_16"}


def test_a_pack_with_names_for_the_shop_is_told_in_its_order(loops, tmp_path):
    files = write_loops(loops, tmp_path, FileStyle(names="splice"), pack=True)
    told = json.loads((files[0].parent / "pack.json").read_text())
    assert [row["file"] for row in told["loops"]] == [file.name for file in files]
    assert [file.name for file in files] == ["90_boom_bap_a.wav", "90_boom_bap_b.wav"]
    assert files[0].parent.name == "boom-bap_90.5bpm_2bars_s3"
