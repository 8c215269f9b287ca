"""Files, read back by readers that are not ours: libsndfile, ffmpeg, wavinfo, mutagen."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from imageio_ffmpeg import get_ffmpeg_exe
from scipy.signal import correlate
from wavinfo import WavInfoReader

from looper.export.loop_files import file_name, write_all
from looper.files import mp3
from looper.files.atomic import deliver
from looper.files.text import plain, slug
from looper.files.write import Tags, dithered, encode, write
from looper.loops.loop import Loop, loop_length
from looper.loops.seam import SeamReport
from looper.request import FORMATS

RATE = 32_000
AWKWARD = {
    "slashes": "../../etc/passwd / \\ C:\\con",
    "emoji": "🎹🔥 beats 🎷",
    "only emoji": "🎹🔥",
    "long": "warm " * 2000,
    "right to left": "مرحبا بالعالم \u202egpj.exe",
    "newlines": "deep\nhouse\r\n\twarm\x00\x1b[31m",
    "empty": "",
    "dots": "....",
}


def cadence(bpm=120.0, bars=2, rate=RATE, channels=0, **info):
    """A loop of an A minor cadence with a click at its start."""
    n = loop_length(bars * 4, bpm, rate)
    t = np.arange(n) / rate
    chords = [(220, 261.6, 329.6), (293.7, 349.2, 440), (329.6, 415.3, 493.9), (220, 261.6, 329.6)]
    quarter = np.minimum((t / t[-1] * 4).astype(int), 3)
    samples = sum(np.sin(2 * np.pi * np.array([c[k] for c in chords])[quarter] * t) for k in range(3)) * 0.15
    samples[:200] += np.linspace(0.4, 0, 200)
    if channels:
        samples = np.stack([samples * (0.5 + 0.5 * k) for k in range(channels)], 1)
    facts = {"prompt": "Deep house, warm chords", "seed": 42, "variation": 1, "model": "tiny", **info}
    return Loop(samples.astype(np.float32), rate, bpm, 4, bars * 4, None, SeamReport(0.5), facts)


def by_ffmpeg(path, rate):
    command = [shutil.which("ffmpeg") or get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    run = subprocess.run(
        [*command, "-f", "f32le", "-ac", "1", "-ar", str(rate), "-"], capture_output=True, check=True
    )
    return np.frombuffer(run.stdout, np.float32)


def by_libsndfile(path, rate):
    heard, found = sf.read(path)
    assert found == rate
    return heard


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [0, 2])
def test_every_format_holds_exactly_the_loops_samples(tmp_path, format, channels):
    loop = cadence(127.003, channels=channels)
    path = loop.save(tmp_path / f"loop.{format}")
    heard, rate = sf.read(path)
    assert (heard.shape, rate) == (loop.samples.shape, RATE)
    tolerance = {"wav": 5e-5, "flac": 5e-5}.get(format, 0.1)
    middle = slice(RATE // 2, -RATE // 2)
    assert np.abs(heard - loop.samples)[middle].max() < tolerance


@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0)])
def test_wav_subtypes_keep_their_promise(tmp_path, subtype, step):
    loop = cadence()
    path = loop.save(tmp_path / "loop.wav", subtype=subtype)
    assert sf.info(path).subtype == subtype
    assert np.abs(sf.read(path)[0] - loop.samples).max() <= 2 * step


@pytest.mark.slow
@pytest.mark.parametrize("rest", [0, 1, 22, 46, 47, 300, 575, 576, 577, 1104, 1105, 1151])
@pytest.mark.parametrize("decode", [by_ffmpeg, by_libsndfile])
@pytest.mark.parametrize("rate", [32000, 44100])
def test_mp3_comes_back_with_its_length_and_without_lag_whatever_the_last_frame_holds(
    tmp_path, rest, decode, rate
):
    samples = 0.1 * np.random.default_rng(rest).standard_normal(12 * 1152 + rest)
    path = tmp_path / "loop.mp3"
    path.write_bytes(mp3.encode(dithered(samples), rate, {"TIT2": "noise"}))
    heard = decode(path, rate)
    assert len(heard) == len(samples)
    assert int(np.argmax(correlate(heard, samples, "full"))) == len(samples) - 1


def test_mp3_is_192_kb_constant_and_says_tempo_key_and_origin(tmp_path):
    path = cadence(127.5).save(tmp_path / "loop.mp3")
    read = mutagen.File(path)
    assert (read.info.bitrate, str(read.info.bitrate_mode)) == (192000, "BitrateMode.CBR")
    assert read.info.length == pytest.approx(8 * 60 / 127.5, abs=0.001)
    assert read.tags["TBPM"].text == ["127.5"]
    assert read.tags["TKEY"].text == ["Am"]
    (comment,) = read.tags.getall("COMM")
    for fact in (
        "prompt: Deep house, warm chords",
        "seed: 42",
        "variation: 1",
        "model: tiny",
        "bpm: 127.5",
        "bars: 2",
    ):
        assert fact in comment.text[0]
    with av.open(str(path)) as file:
        assert file.metadata["title"] == "Deep house, warm chords"
        assert "seed: 42" in file.metadata["comment"]


@pytest.mark.parametrize(("bpm", "bars"), [(124.0, 4), (93.5, 1), (299.9, 8)])
def test_wav_tells_samplers_and_daws_what_it_is(tmp_path, bpm, bars):
    loop = cadence(bpm, bars)
    path = loop.save(tmp_path / "loop.wav")
    n, bar = len(loop.samples), 4 * 60 / bpm * RATE
    starts = [round(k * bar) for k in range(bars)]
    log = sf.SoundFile(path).extra_info
    assert re.search(rf"Start :\s+0\s+End : {n - 1}\b", log)
    assert re.search(rf"Beats\s+: {bars * 4}\b", log)
    assert re.search(r"Meter\s+: 4/4", log)
    assert float(re.search(r"Tempo\s+: ([\d.]+)", log)[1]) == pytest.approx(bpm, abs=1e-4)
    assert "Unknown" not in log
    info = WavInfoReader(str(path), info_encoding="utf-8")
    assert [cue.sample_offset for cue in info.cues.cues] == starts
    (points,) = info.smpl.sample_loops
    assert (points.start, points.end, points.repetition_count) == (0, n - 1, 0)
    assert (info.info.title, info.info.software) == ("Deep house, warm chords", "musicgen-looper")
    assert f"bpm: {bpm:g}; bars: {bars}" in info.info.comment
    with av.open(str(path)) as file:
        assert file.metadata["title"] == "Deep house, warm chords"


def test_an_odd_number_of_bytes_still_makes_a_readable_wav(tmp_path):
    loop = cadence()
    odd = replace(loop, samples=loop.samples[:-1])
    path = odd.save(tmp_path / "odd.wav", subtype="PCM_24")
    assert sf.info(path).frames == len(odd.samples)
    assert WavInfoReader(str(path)).info.software == "musicgen-looper"
    assert int.from_bytes(path.read_bytes()[4:8], "little") == path.stat().st_size - 8


@pytest.mark.parametrize("format", ["flac", "ogg"])
def test_flac_and_ogg_carry_title_and_comment(tmp_path, format):
    read = mutagen.File(cadence().save(tmp_path / f"loop.{format}"))
    assert read["title"] == ["Deep house, warm chords"]
    assert "seed: 42" in read["comment"][0]


def test_dither_is_triangular_keeps_silence_and_repeats():
    quiet = np.full(200_000, 0.3 / 32768)
    values = dithered(quiet).astype(float)
    assert values.mean() == pytest.approx(0.3, abs=0.01)
    # rounding noise of 1/12 plus triangular noise of 1/6 of a squared step, whatever the signal
    assert values.var() == pytest.approx(1 / 4, abs=0.01)
    assert not dithered(np.zeros(1000)).any()
    assert np.array_equal(dithered(quiet), dithered(quiet))
    assert dithered(np.array([2.0, -2.0])).tolist() == [32767, -32768]


@pytest.mark.parametrize("format", ["wav", "mp3", "flac"])
def test_the_same_loop_is_the_same_file(tmp_path, format):
    loop = cadence()
    assert (
        loop.save(tmp_path / f"a.{format}").read_bytes() == loop.save(tmp_path / f"b.{format}").read_bytes()
    )


def test_names_say_it_all():
    assert file_name(cadence(124.0, 4), 1, "wav") == "deep-house-warm-chords_124bpm_4bars_Amin_s42_01.wav"
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    beats = replace(cadence(41.7, 1), samples=noise, beats=2, info={})
    assert file_name(beats, 12, "mp3") == "loop_41.7bpm_2beats_12.mp3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bpm", "digits"),
    [
        (124, "124"),
        (93.7, "93.7"),
        (128.00001, "128.00001"),
        (128.00049, "128.00049"),
        (100 / 3, "33.333333333333336"),
    ],
)
def test_a_tempo_has_all_its_digits_in_names_and_tags(tmp_path, bpm, digits):
    loop = replace(cadence(120.0, 2), bpm=bpm)
    assert f"_{digits}bpm_" in file_name(loop, 1, "wav")
    assert str(mutagen.File(loop.save(tmp_path / "x.mp3"))["TBPM"]) == digits
    comment = sf.SoundFile(loop.save(tmp_path / "x.flac")).comment
    assert re.search(r"bpm: ([\d.]+);", comment)[1] == digits and float(digits) == bpm


@pytest.mark.parametrize("there", [0, 1, 2])
def test_folders_made_for_files_that_cannot_be_written_go_again(tmp_path, monkeypatch, there):
    out = tmp_path / "a" / "b"
    for folder in (out.parent, out)[:there]:
        folder.mkdir()
    before = sorted(tmp_path.rglob("*"))

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"cannot write to {out}: No space left on device"):
        write_all([cadence()], out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("prompt", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_awkward_prompts_make_plain_names_inside_the_folder(tmp_path, prompt, format):
    folder = tmp_path / "out"
    (path,) = write_all([cadence(prompt=prompt)], folder, format)
    assert list(tmp_path.rglob("*")) == [folder, path] or set(tmp_path.rglob("*")) == {folder, path}
    assert re.fullmatch(rf"[a-z0-9-]{{1,40}}_120bpm_2bars_Amin_s42_01\.{format}", path.name)
    read = mutagen.File(path)
    texts = str(read.tags) if format == "mp3" else repr(sf.SoundFile(path).comment)
    assert "\u202e" not in texts
    assert "\x1b" not in texts


@given(st.text())
def test_slugs_are_always_plain(text):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(text))
    assert len(slug(text)) <= 40


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Deep house, warm chords!", "deep-house-warm-chords"),
        ("Café del Mar", "cafe-del-mar"),
        ("con", "loop"),
        ("---", "loop"),
        ("a" * 60, "a" * 40),
        ("many words that go on until the limit is passed", "many-words-that-go-on-until-the-limit-is"),
    ],
)
def test_slugs_read_well(text, name):
    assert slug(text) == name


@given(st.text())
def test_metadata_text_is_one_line_of_printable_characters(text):
    line = plain(text, 50)
    assert len(line) <= 50
    assert line.isprintable()


def test_many_files_sort_in_order(tmp_path):
    loop = cadence(bars=1)
    paths = write_all(
        [replace(loop, info={**loop.info, "variation": k}) for k in range(1, 13)], tmp_path / "new" / "er"
    )
    assert sorted(paths) == paths
    assert [path.name[-6:] for path in paths] == [f"{k:02d}.wav" for k in range(1, 13)]


def test_over_a_hundred_files_are_refused_before_any_is_written(tmp_path):
    with pytest.raises(ValueError, match="at most 100"):
        write_all([cadence(bars=1)] * 101, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_the_user_chose_is_replaced(tmp_path):
    path = tmp_path / "mine.wav"
    path.write_bytes(b"old")
    assert cadence().save(path) == path
    assert sf.info(path).frames == 128000
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_there_already_is_never_replaced_and_the_whole_set_gets_a_number(tmp_path):
    first, second = (tmp_path / file_name(cadence(), k, "wav") for k in (1, 2))
    assert write_all([cadence(), cadence()], tmp_path / "empty")[0].name == first.name
    second.write_bytes(b"somebody's")
    written = write_all([cadence(), cadence()], tmp_path)
    assert [path.name for path in written] == [file_name(cadence(), k, "wav", 2) for k in (1, 2)]
    assert [path.name[-13:] for path in written] == ["_s42-2_01.wav", "_s42-2_02.wav"]
    assert second.read_bytes() == b"somebody's" and not first.exists()


def test_the_same_files_again_are_not_written_twice(tmp_path):
    paths = write_all([cadence()], tmp_path)
    assert write_all([cadence(), cadence()], tmp_path)[0] == paths[0]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["folder", "link to nothing", "link to a file", "pipe"])
def test_whatever_stands_at_a_name_stays_there(tmp_path, kind):
    there, elsewhere = tmp_path / file_name(cadence(), 1, "wav"), tmp_path / "elsewhere"
    if kind == "folder":
        there.mkdir()
    elif kind == "pipe":
        os.mkfifo(there)
    else:
        there.symlink_to(elsewhere)
        if kind == "link to a file":
            elsewhere.write_bytes(cadence().encode("wav"))
    before = there.lstat(), elsewhere.exists() and elsewhere.read_bytes()
    (path,) = write_all([cadence()], tmp_path)
    assert path.name == file_name(cadence(), 1, "wav", 2) and sf.info(path).frames == 128000
    assert (there.lstat().st_ino, there.lstat().st_mode) == (before[0].st_ino, before[0].st_mode)
    assert (elsewhere.exists() and elsewhere.read_bytes()) == before[1]


def test_sets_written_at_once_from_many_threads_are_all_kept(tmp_path):
    sets = [
        [replace(cadence(bars=1), samples=cadence(bars=1).samples * scale)]
        for scale in np.linspace(0.1, 0.9, 9)
    ]
    with ThreadPoolExecutor(9) as pool:
        paths = [path for (path,) in pool.map(lambda one: write_all(one, tmp_path), sets)]
    assert len(set(paths)) == 9
    assert [path.read_bytes() for path in paths] == [one[0].encode("wav") for one in sets]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_hard_links_keeps_what_is_there_too(tmp_path, monkeypatch, code):
    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / file_name(cadence(), 1, "wav")).write_bytes(b"somebody's")
    (path,) = write_all([cadence()], tmp_path)
    assert path.name == file_name(cadence(), 1, "wav", 2) and sf.info(path).frames == 128000
    assert (tmp_path / file_name(cadence(), 1, "wav")).read_bytes() == b"somebody's"
    assert len(list(tmp_path.iterdir())) == 2


class LetterBlind:
    """os.link as a case-insensitive disk has it."""

    def __init__(self):
        self.link = os.link

    def __call__(self, source, target):
        target = Path(target)
        if target.name.lower() in {there.name.lower() for there in target.parent.iterdir()}:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return self.link(source, target)


def test_names_that_differ_in_case_only_do_not_meet_on_a_disk_that_takes_them_for_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", LetterBlind())
    there = tmp_path / file_name(cadence(), 1, "wav").upper()
    there.write_bytes(b"somebody's")
    (path,) = write_all([cadence()], tmp_path)
    assert path.name == file_name(cadence(), 1, "wav", 2) and there.read_bytes() == b"somebody's"


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_leaves_nothing_behind_and_an_older_file_whole(tmp_path):
    old = tmp_path / file_name(cadence(), 2, "wav")
    old.write_bytes(b"old")
    # the first file fits, the second does not
    with pytest.raises(OSError, match=r"cannot write to .*free space there or choose another folder"):
        write_all([replace(cadence(), samples=cadence().samples[:8000]), cadence()], tmp_path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(old.name, b"old")]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_set_of_which_a_later_file_gets_no_name_leaves_none(tmp_path, monkeypatch, error):
    link, names = os.link, []

    def second_fails(source, target):
        names.append(target)
        if len(names) == 2:
            raise error
        link(source, target)

    monkeypatch.setattr(os, "link", second_fails)
    with pytest.raises(type(error)):
        write_all([cadence(), cadence()], tmp_path / "new")
    assert len(names) == 2 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_file_that_gets_no_name_is_told_as_that_and_none_of_the_set_stays(tmp_path, monkeypatch, failing):
    replace_file, calls = Path.replace, []

    def fails(path, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match=r"cannot write to .*: Input/output error"):
        deliver({tmp_path / "a.wav": b"a", tmp_path / "b.wav": b"b"})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write to .*file"):
        write_all([cadence()], tmp_path / "file" / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_without_permission_is_a_clear_error(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    # root may write anywhere, so the system call is what refuses here
    monkeypatch.setattr(type(tmp_path), "open", refused)
    with pytest.raises(OSError, match=r"cannot write to .*Permission denied"):
        cadence().save(tmp_path / "loop.wav")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_chosen_name_is_an_error(tmp_path):
    (tmp_path / "mine.wav").mkdir()
    with pytest.raises(OSError, match="is a folder"):
        cadence().save(tmp_path / "mine.wav")
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_set_leaves_nothing(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def interrupted(handle):
        synced.append(handle)
        if len(synced) == 2:
            raise KeyboardInterrupt
        sync(handle)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_all([cadence(), cadence()], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.EIO, "I/O error")])
def test_a_set_interrupted_between_two_names_leaves_no_new_file(tmp_path, monkeypatch, stop):
    old = tmp_path / file_name(cadence(), 1, "wav")
    old.write_bytes(cadence().encode("wav"))
    named, link = [], os.link

    def interrupted(source, target):
        named.append(target)
        if len(named) == 3:
            raise stop
        return link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        write_all([cadence()] * 4, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [old.name]


@pytest.mark.parametrize(
    ("change", "name", "subtype", "message"),
    [
        ({}, "loop.aiff", None, "format must be one of"),
        ({}, "loop", None, "format must be one of"),
        ({}, "loop.wav", "PCM_32", "choose PCM_16"),
        ({}, "loop.flac", "FLOAT", "choose PCM_16"),
        ({"sample_rate": 96000}, "loop.mp3", None, "MP3 cannot hold 96000 Hz"),
        ({"samples": np.zeros((64000, 3), np.float32)}, "loop.mp3", None, "one or two channels"),
        ({"samples": np.full(64000, np.nan, np.float32)}, "loop.wav", None, "NaN"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(tmp_path, change, name, subtype, message):
    with pytest.raises(ValueError, match=message):
        replace(cadence(), **change).save(tmp_path / name, subtype=subtype)
    assert not list(tmp_path.iterdir())


def test_mp3_needs_no_ffmpeg_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert sf.info(cadence().save(tmp_path / "loop.mp3")).frames == 128000


def test_a_libsndfile_without_mp3_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sf, "available_formats", lambda: {"WAV": "WAV"})
    with pytest.raises(RuntimeError, match="choose wav"):
        cadence().save(tmp_path / "loop.mp3")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000])
def test_every_rate_that_mpeg_audio_has_can_be_written_as_mp3(tmp_path, rate):
    loop = replace(cadence(), sample_rate=rate)
    samples, found = sf.read(loop.save(tmp_path / "x.mp3"))
    assert (found, len(samples)) == (rate, len(loop.samples))


def test_every_bars_label_points_at_its_own_cue(tmp_path):
    content = cadence(bars=4).save(tmp_path / "x.wav").read_bytes()
    at = content.index(b"cue ") + 8
    (count,) = struct.unpack_from("<I", content, at)
    points = [struct.unpack_from("<II4sIII", content, at + 4 + 24 * k) for k in range(count)]
    labels = {}
    for found in re.finditer(rb"labl", content):
        size, cue = struct.unpack_from("<II", content, found.end())
        labels[cue] = content[found.end() + 8 : found.end() + 4 + size].rstrip(b"\0").decode()
    assert [labels[point[0]] for point in points] == [f"bar {k}" for k in range(1, count + 1)]
    assert [point[5] for point in points] == sorted(point[5] for point in points) and points[0][5] == 0


def seed_of_all_files(shape):
    """Triangular noise from the seed that files have had from the first on."""
    noise = np.random.default_rng(0x0D17).random((2, *shape))
    return noise[0] - noise[1]


@pytest.mark.parametrize("shape", [(5000,), (2500, 2)], ids=["mono", "stereo"])
@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("bits", [16, 24])
def test_a_sample_is_rounded_with_the_same_noise_in_every_version(tmp_path, bits, format, shape):
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, shape)
    tags = Tags("x", "y", bpm=120, beats=4, beats_per_bar=4)
    path = write(tmp_path / f"x.{format}", samples, RATE, tags, subtype=f"PCM_{bits}")
    wanted = np.rint(samples * 2 ** (bits - 1) + seed_of_all_files(shape))
    assert np.array_equal(sf.read(path, dtype="int32")[0] / 2 ** (32 - bits), wanted)


@pytest.mark.parametrize("bits", [16, 24])
def test_full_scale_is_clipped_and_not_turned_round(bits):
    top = 2 ** (bits - 1)
    found = dithered(np.array([1.5, -1.5, 1.0, -1.0]), bits).astype(int) // 2 ** (0 if bits == 16 else 8)
    assert found.tolist()[:3] == [top - 1, -top, top - 1] and -top <= found[3] <= 1 - top


@pytest.mark.parametrize(
    ("beats", "metre", "starts"),
    [(1, 4, [0]), (4, 4, [0]), (6, 4, [0]), (6, 3, [0, 48_000]), (8, 4, [0, 64_000])],
)
def test_every_whole_bar_has_a_cue_and_a_loop_of_less_has_one(tmp_path, beats, metre, starts):
    tags = Tags("x", "y", bpm=120, beats=beats, beats_per_bar=metre)
    path = write(tmp_path / "x.wav", np.zeros(beats * 16_000), RATE, tags)
    assert [cue.sample_offset for cue in WavInfoReader(str(path)).cues.cues] == starts


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", FORMATS)
def test_a_single_sample_that_is_no_number_is_refused(format, bad):
    samples = np.zeros(1000)
    samples[500] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        encode(samples, RATE, Tags("x", "y", 120, 4, 4), format)


@pytest.mark.parametrize(
    ("name", "format", "subtype", "found"),
    [
        ("x.WAV", None, None, ("WAV", "PCM_16")),
        ("x.flac", None, None, ("FLAC", "PCM_16")),
        ("x.flac", None, "PCM_24", ("FLAC", "PCM_24")),
        ("x.wav", "flac", None, ("FLAC", "PCM_16")),
        ("x", "wav", "FLOAT", ("WAV", "FLOAT")),
        ("x.ogg", None, "PCM_24", ("OGG", "VORBIS")),
        ("x.mp3", None, "FLOAT", ("MP3", "MPEG_LAYER_III")),
    ],
)
def test_the_format_is_the_asked_one_or_that_of_the_name(tmp_path, name, format, subtype, found):
    tags = Tags("x", "y", 120, 4, 4)
    path = write(tmp_path / name, np.zeros(4000), RATE, tags, format=format, subtype=subtype)
    told = sf.info(path)
    assert (told.format, told.subtype) == found


def test_an_ogg_longer_than_the_encoder_takes_at_once_is_whole(tmp_path):
    samples = 0.3 * np.sin(np.arange(150_000) / 20)
    heard, _ = sf.read(write(tmp_path / "x.ogg", samples, RATE, Tags("x", "y", 120, 4, 4)))
    assert len(heard) == 150_000 and np.abs(heard - samples)[1000:-1000].max() < 0.02


@pytest.mark.parametrize("key", ["Am", None])
def test_a_key_is_told_where_there_is_one(tmp_path, key):
    tags = Tags("x", "y", 120, 4, 4, key=key)
    for format, name in (("mp3", "TKEY"), ("flac", "KEY"), ("ogg", "KEY")):
        read = mutagen.File(write(tmp_path / f"x.{format}", np.zeros(4000), RATE, tags))
        assert [str(text) for text in read.tags.get(name, [])] == ([key] if key else [])
