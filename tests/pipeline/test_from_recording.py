"""Variations of a recording: as long as its loop, running into it, and what it is told before."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
from pyloudnorm import Meter
from scipy.signal import resample_poly

from looper.loops.clicks import CLICK
from looper.loops.matching import cross_clicks
from looper.pipeline.from_recording import find_source
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from testkit.fakes import SAMPLE_RATE, FakeGenerator, drum_track


def ring(bpm: float, beats: int, rate: int = SAMPLE_RATE) -> np.ndarray:
    """A loop as anybody's DAW renders one: whole beats over a pad, the first attack 15 ms after its beginning."""
    n = round(beats * 60 / bpm * rate)
    long = drum_track(bpm, 3 * beats * 60 / bpm + 1, first_beat=0.015)
    if rate != SAMPLE_RATE:
        long = resample_poly(long, rate // 100, SAMPLE_RATE // 100)
    t = np.arange(n) / n
    pad = sum(np.sin(2 * np.pi * (k * beats * 20 * t + k)) / k for k in range(1, 30))
    air = np.random.default_rng(8).standard_normal(n)
    return (0.4 * long[n : 2 * n] + 0.02 * pad + 0.003 * air).astype(np.float32)


def runs_into(file: np.ndarray, loops) -> bool:
    """Whether a file as it is on the user's disk and each loop run into each other.

    All have the same samples around the wrap, so that no two loops differ there more than either does from the file.
    """
    whole = replace(loops[0], samples=file)
    clicks = cross_clicks([whole, *loops])
    around = [
        np.concatenate([samples[-24:], samples[:24]]) for samples in (file, *(x.samples for x in loops))
    ]
    apart = max(np.abs(one - around[0]).max() for one in around[1:])
    return max(clicks[0].max(), clicks[:, 0].max()) <= CLICK and apart < 0.02


def vary(samples, rate=SAMPLE_RATE, generator=None, include_source=False, **wish):
    request = LoopRequest(**{"prompt": "drums", "bpm": 120, "variations": 2, "seed": 5, **wish})
    return LoopMaker(generator or FakeGenerator()).vary(samples, rate, request, include_source=include_source)


@pytest.mark.slow
@pytest.mark.parametrize("clocked", [False, True])
@pytest.mark.parametrize(
    ("bpm", "beats", "rate", "channels"),
    # no length in samples is whole at the last three; a large prime in one would take an FFT seconds
    [(120, 8, 44_100, 2), (93.24, 12, 48_000, 1), (174, 32, 32_000, 0), (126.984, 8, 88_200, 2)],
)
def test_a_loop_is_varied_as_it_is_at_its_rate_with_its_channels(bpm, beats, rate, channels, clocked):
    mine = ring(bpm, beats, rate)
    mine = np.stack([mine, 0.5 * mine], 1)[:, :channels] if channels else mine
    loops = vary(mine, rate, FakeGenerator(clocked), bpm=bpm)
    assert len(loops) == 2 and {loop.samples.shape for loop in loops} == {mine.shape}
    assert {(loop.sample_rate, loop.bpm, loop.beats) for loop in loops} == {(rate, bpm, beats)}
    assert runs_into(mine, loops)
    loud = [Meter(rate).integrated_loudness(samples) for samples in (mine, *(loop.samples for loop in loops))]
    assert np.ptp(loud) < 0.15
    assert any("stereo" in note for note in loops.report.notes) == (channels == 2)


@pytest.mark.slow
def test_the_model_goes_on_from_the_last_bar_of_the_loop():
    mine, generator = ring(120, 16), FakeGenerator()
    mine[-64_000:] *= np.linspace(1, 0.2, 64_000, dtype=np.float32)  # no other bar is like it
    vary(mine, generator=generator)
    (asked,) = generator.calls
    (heard,) = asked.audio_prompts
    assert len(heard) == 64_000 and len(asked.keys) == 2
    assert np.corrcoef(heard, mine[-64_000:])[0, 1] > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("played", [117.3, 124.1])
def test_a_loop_of_another_tempo_is_brought_to_the_asked_one_whole(played):
    mine = ring(played, 16)
    loops = vary(mine, include_source=True)
    assert {len(loop.samples) for loop in loops} == {8 * SAMPLE_RATE} and loops[0].beats == 16
    assert loops.report.measured_bpm[0] == pytest.approx(played, rel=2e-3)
    assert cross_clicks(list(loops)).max() <= CLICK


@pytest.mark.parametrize(("bars", "whole"), [(8, True), (16, False)])
def test_whole_bars_of_over_twenty_seconds_are_no_loop_as_they_are(bars, whole):
    """16 bars at 120 BPM are 32 s: the best loop is cut from them."""
    recording = drum_track(120, bars * 2)[::4]
    found = find_source(recording, SAMPLE_RATE // 4, LoopRequest("drums", bpm=120))
    assert found.whole is whole and found.loop.seconds <= 20


@pytest.mark.slow
def test_of_a_longer_recording_the_best_loop_is_varied():
    loops = vary(drum_track(118.4, 23.3, first_beat=0.37), include_source=True, max_duration=5)
    assert {len(loop.samples) for loop in loops} == {4 * SAMPLE_RATE}
    assert [loop.info["variation"] for loop in loops] == [0, 1, 2]
    three = vary(drum_track(118.4, 23.3, first_beat=0.37), bars=3)
    assert {len(loop.samples) for loop in three} == {6 * SAMPLE_RATE}
    part = vary(ring(120, 16), bars=2)
    assert {len(loop.samples) for loop in part} == {4 * SAMPLE_RATE}


@pytest.mark.slow
def test_the_source_joins_the_set_as_it_is_and_what_is_known_of_it_comes_first():
    mine = ring(120, 16)
    loops = vary(mine, include_source=True, variations=3)
    report = loops.report
    assert len(loops) == len(report.measured_bpm) == len(report.confidence) == len(report.attempts) == 4
    source = loops[0].samples.astype(float)
    gain = source @ mine / (mine @ mine)
    assert np.abs(source - source.mean() - gain * (mine - mine.mean())).max() < 1e-4
    assert gain == pytest.approx(1, abs=0.02)
    again = vary(mine, variations=3)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(loops[1:], again, strict=True))


@pytest.mark.slow
def test_what_a_real_model_makes_of_a_loop_is_as_long_and_runs_into_it(tiny):
    mine = ring(126.5, 8)
    two = tiny.vary(mine, SAMPLE_RATE, LoopRequest("techno drums", bpm=126.5, variations=2, seed=1))
    assert {len(loop.samples) for loop in two} == {len(mine)}
    assert not np.array_equal(two[0].samples, two[1].samples)
    assert runs_into(mine, two)


@pytest.mark.slow
def test_a_variation_is_the_same_however_many_there_are_and_other_with_another_seed(models, monkeypatch):
    monkeypatch.setattr("looper.pipeline.session.ROUNDS", 0)  # random weights always drift
    maker, mine = LoopMaker(models("t5")), ring(240, 8)
    wish = {"prompt": "techno drums", "bpm": 240, "top_k": 20}
    two, one, other = (
        maker.vary(mine, SAMPLE_RATE, LoopRequest(variations=n, seed=seed, **wish))
        for n, seed in ((2, 1), (1, 1), (1, 2))
    )
    assert np.array_equal(two[0].samples, one[0].samples)
    assert not np.array_equal(other[0].samples, one[0].samples)


def test_the_source_is_none_of_the_loops_unless_it_is_asked_for_and_progress_is_told():
    told = []
    maker, asked = LoopMaker(FakeGenerator()), LoopRequest("drums", bpm=120, variations=2, seed=5)
    loops = maker.vary(ring(120, 8), SAMPLE_RATE, asked, progress=lambda *where: told.append(where))
    assert [loop.info["variation"] for loop in loops] == [1, 2]
    assert told and told[-1][1] == told[-1][2]


@pytest.mark.slow
def test_what_drifts_is_drawn_again_and_what_still_does_is_said():
    drifting = FakeGenerator(deviation=lambda key: 0.2 if key[1] == 2 and key[2] == 0 else 0.0)
    assert vary(ring(120, 8), generator=drifting).report.attempts == [1, 2]
    lost = vary(ring(120, 8), generator=FakeGenerator(deviation=lambda key: 0.2))
    assert any("have no clear beat" in note for note in lost.report.notes) and len(lost) == 2


@pytest.mark.slow
def test_a_loop_that_clicks_is_closed_and_that_is_said():
    mine = ring(120, 16)
    mine[-400:] += 0.6
    loops = vary(mine, include_source=True)
    assert any("clicks when it repeats" in note for note in loops.report.notes)
    assert cross_clicks(list(loops)).max() <= CLICK


@pytest.mark.slow
def test_a_master_at_full_scale_leaves_no_room_and_that_is_said():
    mine = ring(120, 16)
    loops = vary(mine / np.abs(mine).max(), include_source=True)
    assert any("peaks leave no room" in note for note in loops.report.notes)
    loud = [Meter(SAMPLE_RATE).integrated_loudness(loop.samples) for loop in loops]
    assert np.ptp(loud) < 0.15


@pytest.mark.parametrize(
    ("samples", "wish", "words"),
    [
        (np.zeros(8 * SAMPLE_RATE), {}, "is silent.*choose another"),
        (np.zeros((8 * SAMPLE_RATE, 2)), {}, "is silent"),
        (drum_track(120, 8)[:, None].repeat(4, 1), {}, "4 channels: mix it down"),
        (drum_track(120, 0.3), {}, "pass more audio"),
        (np.full(64_000, np.nan), {}, "NaN"),
        (drum_track(120, 9), {"bars": 6}, "bars cannot be 6: .* there is room for 4"),
    ],
)
def test_what_is_nothing_to_go_on_from_is_a_sentence(samples, wish, words):
    with pytest.raises(ValueError, match=words):
        find_source(samples, SAMPLE_RATE, LoopRequest("x", bpm=120, **wish))


@pytest.mark.slow
def test_a_recording_without_a_beat_or_a_bar_is_varied_and_that_is_said():
    noise = 0.1 * np.random.default_rng(3).standard_normal(4 * SAMPLE_RATE + 777)
    loops = vary(noise)
    assert any("no clear beat near 120 BPM" in note for note in loops.report.notes) and len(loops) == 2
    short = vary(drum_track(40, 3.0), bpm=40)  # two beats
    assert {len(loop.samples) for loop in short} == {3 * SAMPLE_RATE}
    assert any("no whole bar at 40 BPM" in note for note in short.report.notes)


@pytest.mark.slow
def test_files_of_the_source_and_its_variations_count_from_0(tmp_path):
    from looper.export.loop_files import write_all

    loops = vary(ring(120, 8), include_source=True)
    files = write_all(loops, tmp_path)
    assert [file.name[-6:] for file in files] == ["00.wav", "01.wav", "02.wav"]
    assert {sf.info(file).frames for file in files} == {4 * SAMPLE_RATE}
    assert "source: " in sf.SoundFile(files[1]).comment
    shop = write_all(loops, tmp_path, names="splice")
    assert [file.stem.split("_")[2] for file in shop] == ["source", "a", "b"]
