"""Loops at studio rates and depths, read by libsndfile, ffmpeg, mutagen, wavinfo, sox, exiftool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache

import mutagen
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from imageio_ffmpeg import get_ffmpeg_exe
from pyloudnorm import Meter
from scipy.signal import resample
from wavinfo import WavInfoReader

from looper.export.loop_files import write_all
from looper.files import vorbis_comments
from looper.files.formats import RATES, check_rate
from looper.loops.clicks import CLICK
from looper.loops.loudness import CEILING_DBTP, true_peak
from looper.loops.matching import cross_clicks, finish
from looper.loops.resample import at_rate, resampled
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from testkit.fakes import FakeGenerator
from tests.files.test_write import cadence

FFMPEG = shutil.which("ffmpeg") or get_ffmpeg_exe()


def said(*command: object) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, timeout=60).stdout


def frames_by_libsndfile(path, rate):
    read, found = sf.read(path)
    assert found == rate
    return len(read)


def frames_by_ffmpeg(path, rate):
    done = subprocess.run(
        [FFMPEG, "-v", "error", "-i", path, "-f", "s16le", "-ar", str(rate), "-ac", "1", "-"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b""
    return len(done.stdout) // 2


def frames_by_sox(path, rate):
    told = said("sox", "--i", path)
    assert int(re.search(r"Sample Rate\s*: (\d+)", told)[1]) == rate
    return int(re.search(r"= (\d+) samples", told)[1])


def frames_by_ffprobe(path, rate):
    told = json.loads(said("ffprobe", "-v", "error", "-show_streams", "-of", "json", path))["streams"][0]
    assert int(told["sample_rate"]) == rate
    return round(float(told["duration"]) * rate)


SOX = [frames_by_sox] if shutil.which("sox") else []
PROBE = [frames_by_ffprobe] if shutil.which("ffprobe") else []
COUNTED = {
    "wav": [frames_by_libsndfile, *SOX, *PROBE],
    "flac": [frames_by_libsndfile, *SOX, *PROBE],
    "ogg": [frames_by_libsndfile, *PROBE],  # ffmpeg decodes a short file's last block whole, whoever wrote it
    "mp3": [frames_by_libsndfile, frames_by_ffmpeg],  # the others do not count what LAME's tag takes off
}


@pytest.mark.parametrize(
    ("bpm", "rate"),
    [(bpm, 44_100) for bpm in (40, 61.3, 93.7, 120, 127.003, 174, 299.9)]
    + [(bpm, rate) for bpm in (40, 61.3, 127.003, 299.9) for rate in (32_000, 48_000)],
)
@pytest.mark.slow
def test_every_format_has_the_exact_samples_at_every_rate(tmp_path, bpm, rate):
    loop = cadence(bpm, 1).at_rate(rate)
    n = round(4 * 60 / bpm * rate)
    for format, readers in COUNTED.items():
        path = loop.save(tmp_path / f"loop.{format}", subtype="PCM_24" if format in ("wav", "flac") else None)
        assert [read(path, rate) for read in readers] == [n] * len(readers), format


@cache
def four_bars(rate):
    """A tempo whose lengths in samples are no whole numbers and have no large prime, which an FFT would be slow at."""
    return cadence(94.09, 4).at_rate(rate)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_loop_points_tempo_and_bars_are_those_of_the_new_rate(tmp_path, rate, subtype):
    path = four_bars(rate).save(tmp_path / "loop.wav", subtype=subtype)
    n, bar = round(16 * 60 / 94.09 * rate), 4 * 60 / 94.09 * rate
    info = WavInfoReader(str(path), info_encoding="utf-8")
    (points,) = info.smpl.sample_loops
    assert (points.start, points.end) == (0, n - 1)
    assert info.smpl.sample_period_ns == round(1e9 / rate)
    assert [cue.sample_offset for cue in info.cues.cues] == [round(k * bar) for k in range(4)]
    log = sf.SoundFile(path).extra_info
    assert re.search(rf"Start :\s+0\s+End : {n - 1}\b", log) and re.search(r"Beats\s+: 16\b", log)
    assert float(re.search(r"Tempo\s+: ([\d.]+)", log)[1]) == pytest.approx(94.09, abs=1e-4)
    if shutil.which("exiftool"):
        (told,) = json.loads(said("exiftool", "-json", path))
        assert told["SampleRate"] == rate and told["AcidizerFlags"]
        assert (told["Beats"], told["Tempo"], told["Meter"]) == (16, pytest.approx(94.09, abs=1e-3), "4/4")


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("format", ["flac", "ogg"])
def test_flac_and_ogg_tell_tempo_key_and_loop_points(tmp_path, format, rate):
    loop = cadence(127.003, 2).at_rate(rate)
    path = loop.save(tmp_path / f"loop.{format}")
    wanted = {"BPM": "127.003", "KEY": "Am", "LOOPSTART": "0", "LOOPLENGTH": str(len(loop.samples))}
    read = mutagen.File(path)
    assert {name: read[name] for name in wanted} == {name: [text] for name, text in wanted.items()}
    assert read["title"] == ["Deep house, warm chords"] and "seed: 42" in read["comment"][0]
    if shutil.which("ffprobe"):
        told = json.loads(
            said("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path)
        )
        tags = {**told["format"].get("tags", {}), **told["streams"][0].get("tags", {})}
        assert {name.upper(): text for name, text in tags.items()}.items() >= wanted.items()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 200, 255, 5_000, 70_000, 200_000])
def test_comments_of_any_length_leave_the_sound_as_it_was(tmp_path, size):
    samples = 0.1 * np.random.default_rng(1).standard_normal(48_000)
    for format, insert in (("flac", vorbis_comments.into_flac), ("ogg", vorbis_comments.into_ogg)):
        plain, path = tmp_path / f"plain.{format}", tmp_path / f"long.{format}"
        sf.write(plain, samples, 32_000)
        path.write_bytes(insert(plain.read_bytes(), {"BPM": "124", "NOTE": "x" * size}))
        assert np.array_equal(sf.read(path)[0], sf.read(plain)[0])
        assert frames_by_ffmpeg(path, 32_000) == 48_000
        read = mutagen.File(path)
        assert read["BPM"] == ["124"] and read["NOTE"] == ["x" * size]


@given(
    st.integers(300, 3000),
    st.integers(300, 3000),
    st.lists(st.tuples(st.integers(0, 140), st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=8),
)
def test_a_round_keeps_its_waves_at_another_rate(n, m, waves):
    def made(size):
        t = 2 * np.pi * np.arange(size) / size
        return sum(a * np.cos(k * t) + b * np.sin(k * t) for k, a, b in waves)

    assert np.abs(resampled(made(n), m) - made(m)).max() < 1e-9


@pytest.fixture(scope="module")
def loops():
    return LoopMaker(FakeGenerator()).make(
        LoopRequest("drums", bpm=126.984, variations=3, max_duration=4, seed=5)
    )


@pytest.mark.parametrize(
    ("rate", "taken"), [(32_000, True), (44_100, True), (48_000, True), (44_101, False), (96_000, False)]
)
def test_the_rates_are_the_models_and_those_that_samples_are_sold_at(rate, taken):
    if taken:
        assert check_rate(rate) == rate
    else:
        with pytest.raises(ValueError, match="rate must be 32000, 44100 or 48000"):
            check_rate(rate)


@pytest.mark.parametrize("rate", [32_000, 44_100])
def test_a_square_at_the_ceiling_stays_under_it_at_another_rate(rate):
    """Less of its spectrum fits at 32 kHz: what is left rings higher."""
    square = np.sign(np.sin(2 * np.pi * 100 * (np.arange(22_050) + 0.5) / 44_100)) * 0.85
    found = at_rate(square, rate // 2, rate)
    assert true_peak(found) <= 10 ** (CEILING_DBTP / 20) + 1e-6
    assert np.abs(found).max() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES[1:])
def test_a_set_at_another_rate_still_runs_into_itself_equally_loud_under_the_ceiling(loops, rate):
    found = loops.at_rate(rate)
    assert {len(loop.samples) for loop in found} == {round(8 * 60 / 126.984 * rate)}
    assert cross_clicks(list(found)).max() <= CLICK
    assert max(loop.seam.click_ratio for loop in found) <= CLICK
    loud = [Meter(rate).integrated_loudness(loop.samples) for loop in found]
    assert np.ptp(loud) < 0.2
    peaks = [np.abs(resample(loop.samples.astype(float), 8 * len(loop.samples))).max() for loop in found]
    assert 20 * np.log10(max(peaks)) <= -1
    assert found.report is loops.report and found[0].at_rate(rate) is found[0]


@pytest.mark.slow
def test_stereo_that_peaks_between_the_new_samples_is_kept_under_the_ceiling():
    base = cadence(120, 2)
    loud = np.random.default_rng(2).uniform(-1, 1, (len(base.samples), 2)).astype(np.float32)
    (full,) = finish([replace(base, samples=loud)])
    for rate in RATES[1:]:
        found = full.at_rate(rate)
        assert found.samples.shape == (4 * rate, 2)
        peak = np.abs(resample(found.samples.astype(float), 8 * len(found.samples), axis=0)).max()
        assert 20 * np.log10(peak) <= -1


@pytest.mark.parametrize("rate", [0, -44100, 8000, 22_050, 96_000, 44_100.5, float("nan"), "44100"])
def test_a_rate_that_is_none_of_the_three_is_refused_by_name(loops, rate):
    for what in (loops, loops[0]):
        with pytest.raises(ValueError, match=r"rate must be (32000, 44100 or 48000|a whole number)"):
            what.at_rate(rate)


def test_names_for_the_sample_shop_keep_to_its_rules(tmp_path):
    prompt = "Café 909 drums, 124 bpm! (deep)"
    base = cadence(93.7, 2, prompt=prompt)
    files = write_all([base, base, replace(base, beats_per_bar=3)], tmp_path, names="splice")
    assert [file.name for file in files] == [
        "94_cafe_drums_bpm_deep_a_Amin.wav",
        "94_cafe_drums_bpm_deep_b_Amin.wav",
        "94_3-4_cafe_drums_bpm_deep_c_Amin.wav",
    ]
    (other,) = write_all([cadence(94, 2, prompt=prompt)], tmp_path, names="splice")
    assert other.name == "94_cafe_drums_bpm_deep_b_a_Amin.wav"
    assert all(re.fullmatch(r"[A-Za-z0-9_#-]+\.wav", file.name) for file in tmp_path.iterdir())
