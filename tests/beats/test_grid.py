"""The beat grid against drum patterns, chords and recordings whose beats are known by construction."""

from __future__ import annotations

import itertools
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from scipy.signal import resample_poly

from looper.beats.constraints import Constraints
from looper.beats.downbeats import DownbeatHypothesis
from looper.beats.grid import BarEstimate, BeatGrid, _candidates, analyse, fit_grid
from looper.beats.spans import Lines
from looper.beats.tempo_map import TempoMap, straight
from looper.export.plot_grid import plot_grid
from testkit.clicks import blank

RATE = 32_000


def hit(rate: int, low: float, high: float, seconds: float, noise: float, seed: int) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    pitch = low + (high - low) * np.exp(-t / 0.02)
    hiss = np.random.default_rng(seed).normal(0, 0.5, len(t))
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    return ((1 - noise) * tone + noise * hiss) * np.exp(-t / (0.2 * seconds))


def at_times(rate: int, seconds: float, hits: list[tuple[float, np.ndarray, float]]) -> np.ndarray:
    out = np.zeros(round(seconds * rate) + 2 * rate)
    for time, sound, gain in hits:
        first = round(time * rate)
        if 0 <= first < len(out) - len(sound):
            out[first : first + len(sound)] += gain * sound
    return 0.3 * out[: round(seconds * rate)]


def chord(rate: int, root: float, seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * root * r * h * t) / h for r in (1, 1.26, 1.5) for h in (1, 2, 3)]
    return 0.15 * np.sum(tones, axis=0) * np.minimum(1, t / 0.004) * np.exp(-t / (0.7 * seconds))


def band(beats: np.ndarray, metre: int, seconds: float, rate: int = RATE, swing: float = 0.5) -> np.ndarray:
    """Kick on one, snare on the backbeat, hats in eighths, a bass note and a new chord on every bar line."""
    kick, snare = hit(rate, 50, 180, 0.25, 0.0, 0), hit(rate, 180, 240, 0.15, 0.7, 1)
    hat = hit(rate, 300, 300, 0.05, 1.0, 2)
    hits = []
    for i, (a, b) in enumerate(itertools.pairwise(beats)):
        place = i % metre
        hits += [(a, hat, 0.4), (a + swing * (b - a), hat, 0.3)]
        if place == 0:
            root = 110 * 2 ** ((0, 5, 7, 3)[i // metre % 4] / 12)
            hits += [(a, kick, 1.2), (a, chord(rate, 2 * root, 0.9 * metre * (b - a)), 0.8)]
            hits += [(a, chord(rate, root / 2, 0.9 * (b - a)), 1.2)]
        elif (metre % 2 == 0 and place % 2 == 1) or (metre % 2 == 1 and place == metre // 2 + 1):
            hits.append((a, snare, 0.9))
        elif place == metre // 2:
            hits.append((a, kick, 0.8))
    return at_times(rate, seconds, hits)


def even(bpm: float, first: float, seconds: float) -> np.ndarray:
    return np.arange(first, seconds + 60 / bpm, 60 / bpm)


def phase_error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.median([np.abs(true - t).min() for t in found]))


def check_sane(grid: BeatGrid, seconds: float) -> None:
    assert 0 <= grid.loop_start < grid.loop_end <= seconds + 1e-9
    assert 0.0 <= grid.confidence <= 1.0
    assert np.isfinite(grid.beat_times).all() and np.isfinite(grid.downbeat_times).all()
    assert (np.diff(grid.beat_times) > 0).all()
    assert grid.spans and grid.spans[0].start == grid.loop_start and grid.spans[0].end == grid.loop_end
    assert grid.bars == grid.beats / grid.beats_per_bar
    assert all(isinstance(s.beats, int) and np.isfinite(s.score) for s in grid.spans)


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [62, 97, 124, 141])
@pytest.mark.parametrize("asked_off", [-0.05, 0.0, 0.04])
def test_the_music_s_own_tempo_is_found_near_the_asked_one(bpm: float, asked_off: float) -> None:
    seconds = max(8.0, 16 * 60 / bpm)
    beats = even(bpm, 0.02, seconds)
    grid = analyse(band(beats, 4, seconds), RATE, bpm * (1 + asked_off))
    assert grid.bpm == pytest.approx(bpm, rel=5e-4)
    assert phase_error(grid.beat_times, beats) < 0.003


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metre", "bpm"), [(2, 110), (3, 96), (3, 150), (4, 120), (5, 132), (6, 180), (7, 190)]
)
def test_bar_lines_of_every_metre_are_found(metre: int, bpm: float) -> None:
    seconds = 12.0
    beats = even(bpm, 0.013, seconds)
    grid = analyse(band(beats, metre, seconds), RATE, bpm, beats_per_bar=metre)
    bar = 60 / bpm * metre
    true = np.arange(0.013, seconds, bar)
    off = (grid.loop_start - 0.013 + bar / 2) % bar - bar / 2
    assert abs(off) < 0.05
    assert mir_eval.beat.f_measure(true, np.maximum(0, grid.downbeat_times)) > 0.6
    assert (grid.loop_end - grid.loop_start) / bar == pytest.approx(grid.bars, rel=2e-3)
    assert np.log2(grid.bars) == int(np.log2(grid.bars))


def test_a_downbeat_at_time_zero_begins_the_loop() -> None:
    beats = even(120, 0.0, 9.0)
    grid = analyse(band(beats, 4, 9.0), RATE, 120)
    assert grid.loop_start == pytest.approx(0.0, abs=0.005)
    assert grid.bars == 4


def test_four_bars_that_fill_the_clip_exactly_are_all_used() -> None:
    beats = even(120, 0.0, 8.0)
    grid = analyse(band(beats, 4, 8.0), RATE, 120)
    assert grid.bars == 4
    assert grid.loop_end - grid.loop_start == pytest.approx(8.0, abs=0.01)


@pytest.mark.parametrize("asked", [70, 280])
def test_music_at_another_level_keeps_the_asked_beats_and_whole_bars(asked: float) -> None:
    beats = even(140, 0.01, 10.0)
    grid = analyse(band(beats, 4, 10.0), RATE, asked)
    assert grid.bpm == pytest.approx(asked, rel=5e-4)
    bars = (grid.loop_end - grid.loop_start) / (4 * 60 / 140)
    assert bars == pytest.approx(round(bars), rel=2e-3)


def test_swing_moves_no_beat() -> None:
    beats = even(110, 0.02, 10.0)
    grid = analyse(band(beats, 4, 10.0, swing=0.66), RATE, 108)
    assert grid.bpm == pytest.approx(110, rel=5e-4)
    assert phase_error(grid.beat_times, beats) < 0.004


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [24.0, 60.0])
def test_drift_is_followed_beat_by_beat(seconds: float) -> None:
    period = 0.5 * (1 + 0.01 * np.linspace(-0.5, 0.5, int(seconds / 0.5) + 4))
    beats = 0.02 + np.r_[0.0, np.cumsum(period)]
    grid = analyse(band(beats, 4, seconds), RATE, 120)
    assert grid.drift > 0.004
    inside = beats[beats < seconds - 0.1]
    assert mir_eval.beat.f_measure(inside, grid.beat_times, f_measure_threshold=0.015) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("max_seconds", [8.1, 4.0, 2.0, 1.2, 0.6])
def test_max_seconds_bounds_the_loop_at_the_asked_tempo(max_seconds: float) -> None:
    beats = even(118, 0.02, 10.0)
    grid = fit_grid(band(beats, 4, 10.0), RATE, 120, max_seconds=max_seconds)
    assert grid.beats * 0.5 <= max_seconds + 1e-9
    assert grid.beats == {8.1: 16, 4.0: 8, 2.0: 4, 1.2: 2, 0.6: 1}[max_seconds]


def test_min_start_is_honoured() -> None:
    beats = even(120, 0.02, 12.0)
    grid = fit_grid(band(beats, 4, 12.0), RATE, 120, min_start=1.0)
    assert grid.loop_start >= 1.0
    assert grid.loop_start == pytest.approx(2.02, abs=0.02)
    assert all(span.start >= 1.0 - 1e-9 for span in grid.spans)


@pytest.mark.slow
@pytest.mark.parametrize("beats", [1, 2, 4, 6, 8])
def test_a_wanted_number_of_beats_is_given(beats: int) -> None:
    clip = band(even(120, 0.02, 9.0), 4, 9.0)
    grid = fit_grid(clip, RATE, 120, beats=beats)
    assert grid.beats == beats
    assert grid.loop_end - grid.loop_start == pytest.approx(beats * 0.5, rel=2e-3)


def test_more_beats_than_there_are_gives_fewer() -> None:
    grid = fit_grid(band(even(120, 0.02, 5.0), 4, 5.0), RATE, 120, beats=64)
    assert grid.beats == 8


@pytest.mark.slow
@pytest.mark.parametrize("known", [1.0, 1.5, 2.03])
def test_a_known_bar_line_is_kept_and_placed_exactly(known: float) -> None:
    clip = band(even(120, 0.02, 9.0), 4, 9.0)
    grid = fit_grid(clip, RATE, 120, downbeat=known)
    true = 0.02 + 0.5 * round((known - 0.02) / 0.5)
    assert np.abs(grid.downbeat_times - true).min() < 0.003


def test_music_without_drums_is_read_from_its_chords() -> None:
    hits = []
    for i in range(6):
        hits.append((0.6 + 2.0 * i, chord(RATE, 220 * 2 ** ((0, 5, 7, 3)[i % 4] / 12), 2.0), 1.0))
        for k in range(4):
            root = 440 * 2 ** ((0, 5, 7, 3)[i % 4] / 12)
            hits.append((0.6 + 2.0 * i + 0.5 * k, chord(RATE, root * (1, 1.26, 1.5, 1.26)[k], 0.5), 0.6))
    grid = analyse(at_times(RATE, 12.0, hits), RATE, 118)
    assert grid.bpm == pytest.approx(120, rel=2e-3)
    assert abs((grid.loop_start - 0.6 + 1) % 2 - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [40, 97.3, 120, 300])
@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(8 * RATE),
        np.full(8 * RATE, 0.25),
        np.random.default_rng(0).normal(0, 0.1, 8 * RATE),
        np.zeros((8 * RATE, 2), np.int16),
    ],
    ids=["silence", "constant", "noise", "stereo silence"],
)
def test_audio_that_says_nothing_gets_the_asked_grid_and_no_confidence(
    samples: np.ndarray, bpm: float
) -> None:
    grid = analyse(samples, RATE, bpm)
    check_sane(grid, 8.0)
    assert grid.confidence == 0.0
    assert grid.bpm == pytest.approx(bpm)


def test_the_clarity_of_noise_is_reported_as_it_was_measured() -> None:
    noise = analyse(np.random.default_rng(0).normal(0, 0.1, 8 * RATE), RATE, 120)
    music = analyse(band(even(120, 0.1, 8.0), 4, 8.0), RATE, 120)
    assert 0 < noise.clarity < 5 < music.clarity


def test_a_steady_tone_is_no_beat() -> None:
    tone = np.sin(2 * np.pi * 220 * np.arange(8 * RATE) / RATE)
    grid = analyse(tone, RATE, 100)
    check_sane(grid, 8.0)
    assert grid.confidence < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("rate", [44_100, 48_000, 88_200, 96_000, 192_000])
def test_a_recording_of_any_higher_rate_is_heard_as_it_would_be_at_32_khz(rate: int) -> None:
    played = band(np.arange(0.31, 8.0, 0.493), 4, 8.0, 192_000)
    lower, higher = (resample_poly(played, r // 100, 1920) for r in (32_000, rate))
    there, here = analyse(lower, 32_000, 120), analyse(higher, rate, 120)
    assert here.bpm == pytest.approx(there.bpm, rel=2e-4)
    assert here.loop_start == pytest.approx(there.loop_start, abs=1e-3) and here.beats == there.beats
    assert here.confidence == pytest.approx(there.confidence, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_sample_rate_gives_the_same_grid(rate: int) -> None:
    beats = even(120, 0.02, 6.0)
    grid = analyse(band(beats, 4, 6.0, rate), rate, 122)
    assert grid.bpm == pytest.approx(120, rel=1e-3)
    assert phase_error(grid.beat_times, beats) < 0.003


@pytest.mark.slow
def test_integer_and_stereo_samples_are_read_as_soundfile_gives_them() -> None:
    mono = band(even(120, 0.02, 8.0), 4, 8.0)
    mono /= np.abs(mono).max()
    plain = analyse(mono, RATE, 120)
    for same in (
        (32_000 * mono).astype(np.int16),
        np.stack([mono, mono], axis=1),
        np.stack([mono, -mono], axis=1),
        mono.astype(np.float32),
    ):
        grid = analyse(same, RATE, 120)
        np.testing.assert_allclose(grid.beat_times, plain.beat_times, atol=2e-4)


@pytest.mark.slow
def test_five_minutes_are_read_to_the_end() -> None:
    rate, seconds = 8_000, 300.0
    beats = even(121.3, 0.02, seconds)
    grid = analyse(band(beats, 4, seconds, rate), rate, 120)
    check_sane(grid, seconds)
    assert grid.bpm == pytest.approx(121.3, rel=1e-3)
    assert phase_error(grid.beat_times[-200:], beats) < 0.02


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bpm": 12}, "bpm must be between 40 and 300, got 12"),
        ({"bpm": 301}, "bpm must be between"),
        ({"bpm": float("nan")}, "bpm must be a finite number"),
        ({"bpm": "fast"}, "bpm must be a finite number"),
        ({"bpm": True}, "bpm must be a finite number"),
        ({"beats_per_bar": 0}, "beats_per_bar must be between 1 and 16, got 0"),
        ({"beats_per_bar": 3.5}, "beats_per_bar must be a whole number"),
        ({"sample_rate": 0}, "sample_rate must be between"),
        ({"samples": np.zeros(0)}, "samples is empty"),
        ({"samples": np.zeros(320)}, "samples hold 0.010 s"),
        ({"samples": np.full(RATE, np.nan)}, "samples must be finite"),
        ({"samples": np.r_[np.zeros(RATE), np.inf]}, "samples must be finite"),
        ({"samples": np.zeros((2, 3, 4))}, r"samples must be \[time\] or \[time, channels\]"),
        ({"samples": np.zeros((2, RATE))}, r"samples must be \[time\] or \[time, channels\]"),
        ({"samples": np.zeros(RATE, complex)}, "samples must be floating point or integer"),
        ({"samples": np.array(["a"])}, "samples must be floating point or integer"),
        ({"min_start": -1.0}, "min_start must be 0 s or later"),
        ({"min_start": 7.9}, "min_start"),
        ({"max_seconds": 0}, "max_seconds must be above 0"),
        ({"beats": 0}, "beats must be at least 1"),
        ({"beats": 2.5}, "beats must be a whole number"),
        ({"downbeat": float("nan")}, "downbeat must be"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(change: dict, words: str) -> None:
    given = {"samples": np.zeros(8 * RATE), "sample_rate": RATE, "bpm": 120.0, **change}
    with pytest.raises(ValueError, match=words):
        fit_grid(**given)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.51, 0.8, 1.3, 2.1])
@pytest.mark.parametrize("kind", ["music", "noise", "click"])
def test_short_audio_gives_the_beats_that_fit(seconds: float, kind: str) -> None:
    samples = {
        "music": band(even(120, 0.0, seconds), 4, seconds),
        "noise": np.random.default_rng(3).normal(0, 0.1, int(seconds * RATE)),
        "click": np.eye(1, int(seconds * RATE), 1000)[0],
    }[kind]
    grid = analyse(samples, RATE, 120)
    check_sane(grid, seconds)
    assert grid.bars in (0.25, 0.5, 1.0)


def test_confidence_is_higher_for_a_band_than_for_a_bare_pulse() -> None:
    clear = analyse(band(even(120, 0.02, 10.0), 4, 10.0), RATE, 120)
    pulse = [(t, hit(RATE, 800, 800, 0.05, 0.2, 0), 1.0) for t in even(120, 0.7, 10.0)]
    bare = analyse(at_times(RATE, 10.0, pulse), RATE, 120)
    assert clear.confidence > bare.confidence + 0.1


def test_the_same_samples_give_the_same_grid() -> None:
    clip = band(even(93, 0.1, 9.0), 4, 9.0)
    first, again = analyse(clip, RATE, 95), analyse(clip, RATE, 95)
    np.testing.assert_array_equal(first.beat_times, again.beat_times)
    assert first.spans == again.spans
    assert first.confidence == again.confidence


def test_a_tempo_map_goes_both_ways() -> None:
    bent = TempoMap(np.arange(20.0), 0.3 + np.cumsum(0.5 + 0.01 * np.sin(np.arange(20.0))))
    at = np.linspace(-3, 25, 57)
    np.testing.assert_allclose(bent.position(bent.time(at)), at, atol=1e-9)
    np.testing.assert_allclose(np.diff(bent.even_time(bent.time(at))), np.diff(at) * bent.period)
    np.testing.assert_allclose(straight(0.5, 0.1, 8.0).time(np.array([-2.0, 3.0])), [-0.9, 1.6])


@pytest.mark.slow
def test_a_picture_is_drawn(tmp_path: Path) -> None:
    clip = band(even(120, 0.02, 6.0), 4, 6.0)
    plot_grid(np.stack([clip, clip], axis=1), RATE, analyse(clip, RATE, 120), tmp_path / "grid.png")
    data = (tmp_path / "grid.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) > 10_000


# What no music says is known to the last beat: the asked tempo's grid over silence.
def silent(seconds: float, bpm: float = 120, beats_per_bar: int = 4, rate: int = 8_000, **how) -> BeatGrid:
    return fit_grid(np.zeros(round(seconds * rate)), rate, bpm, beats_per_bar, **how)


def test_over_silence_beats_and_bar_lines_are_the_asked_ones_from_the_beginning() -> None:
    grid = silent(7.0)
    assert grid.beat_times == pytest.approx(0.5 * np.arange(14))
    assert grid.downbeat_times == pytest.approx([0.0, 2.0, 4.0, 6.0])
    assert (grid.bpm, grid.beats_per_bar, grid.bars, grid.beats) == (120.0, 4, 2.0, 8)
    assert (grid.level, grid.drift, grid.clarity, grid.confidence) == (1.0, 0.0, 0.0, 0.0)
    assert (grid.loop_start, grid.loop_end) == (2.0, 6.0)
    assert grid.tempo_map is not None and float(grid.tempo_map.time(np.array(4.0))) == pytest.approx(2.0)
    assert analyse(np.zeros(56_000), 8_000, 120).bars == 2.0
    three = silent(7.0, 90, 3)
    assert three.downbeat_times == pytest.approx([0.0, 2.0, 4.0, 6.0])
    assert (three.bars, three.loop_end - three.loop_start, three.level) == (2.0, 4.0, 1.0)


def test_over_silence_a_bar_line_that_is_known_is_kept_and_counted_back_from() -> None:
    grid = silent(7.0, downbeat=3.3)
    assert grid.downbeat_times == pytest.approx([1.3, 3.3, 5.3])
    assert grid.beat_times == pytest.approx(0.3 + 0.5 * np.arange(14))
    assert grid.beats == 8 and grid.loop_start == pytest.approx(1.3)
    early = silent(7.0, downbeat=2.98)
    assert early.downbeat_times == pytest.approx([0.98, 2.98, 4.98, 6.98])
    assert early.beat_times[0] == pytest.approx(-0.02), "a beat just before the recording is one of it"
    assert silent(7.0, downbeat=2.96).beat_times[0] == pytest.approx(0.46)


@pytest.mark.parametrize(
    ("seconds", "how", "start", "beats"),
    [
        (9.0, {}, 0.0, 16),
        (9.0, {"max_seconds": 7.9}, 2.0, 8),
        (9.0, {"beats": 6}, 2.0, 6),
        (9.0, {"beats": 8, "min_start": 1.0}, 2.0, 8),
        (4.6, {"beats": 8, "min_start": 0.1}, 0.5, 8),  # where no bar line leaves room any beat will do
        (3.6, {"beats": 6, "min_start": 0.1}, 0.5, 6),
        (4.6, {"beats": 64}, 0.0, 8),
        (
            9.0,
            {"beats": 12, "min_start": 4.2},
            6.0,
            4,
        ),  # a whole bar rather than two that begin beside a line
        (5.9, {"min_start": 2.2}, 2.5, 4),  # 3.7 s are left
        (3.9, {"min_start": 2.2}, 2.5, 2),
        (3.2, {"min_start": 2.2}, 2.5, 1),
        (1.9, {}, 0.0, 2),  # a beat that begins a bar
    ],
)
def test_over_silence_the_longest_loop_that_fits_is_cut_from_a_bar_line_or_else_from_a_beat(
    seconds: float, how: dict, start: float, beats: int
) -> None:
    grid = silent(seconds, **how)
    assert (grid.loop_start, grid.beats) == (pytest.approx(start), beats)
    assert grid.loop_end == pytest.approx(start + 0.5 * beats)


def test_where_no_bar_fits_beats_that_begin_one_are_cut_whatever_number_was_asked_for() -> None:
    for how in ({}, {"beats": 8}):
        assert [(span.start, span.beats) for span in silent(1.9, **how).spans] == [(0.0, 2), (0.0, 1)]
    assert {span.start % 2 for span in silent(9.0, beats=6).spans} == {0.0}


def test_where_not_even_a_beat_of_the_grid_fits_the_last_beat_s_length_is_cut() -> None:
    """A known bar line in the middle of one and a half seconds at 40 BPM leaves no whole beat on either side."""
    grid = silent(1.5, 40, downbeat=1.0)
    assert (grid.loop_start, grid.loop_end, grid.beats) == (0.0, 1.5, 1)
    (span,) = grid.spans
    assert (span.score, span.likeness, span.quiet, span.jump_db) == (0.0, 0.0, 0.0, 0.0)
    later = silent(1.8, 40, downbeat=1.0, min_start=0.2)
    assert (later.loop_start, later.loop_end) == (pytest.approx(0.2), pytest.approx(1.7))


def test_the_candidates_are_the_two_dozen_best_and_longer_ones_come_before_shorter() -> None:
    grid = silent(30.0, 300, 1)
    assert len(grid.spans) == 24
    assert np.diff([span.beats for span in grid.spans]).max() == 0
    assert grid.beats == 128
    assert [span.beats for span in silent(12.0).spans] == [16] * 3 + [8] * 5 + [4] * 6, "all from bar lines"


def test_one_beat_is_long_enough_and_less_is_named() -> None:
    assert silent(0.5).beats == 1
    assert silent(1.5, min_start=1.0).loop_start == 1.0
    with pytest.raises(ValueError, match=r"samples hold 1\.480 s, 0\.480 s of them after min_start"):
        silent(1.48, min_start=1.0)
    with pytest.raises(
        ValueError, match=r"samples hold 0\.500 s, 0\.000 s of them .* 120 bpm takes 0\.500 s"
    ):
        silent(0.5, min_start=1.0)


@pytest.mark.parametrize(
    ("shown", "cut", "kept"),
    [
        (4, 4, [16, 8, 4]),
        (4, 8, [16, 8]),  # bars that may be twice as long: half of one starts no loop
        (2, 4, [16, 8, 4]),
        (4, 12, [16, 8, 4]),  # no power of two fits bars of three
    ],
)
def test_loops_are_whole_bars_of_the_surest_kind_where_those_fit(
    shown: int, cut: int, kept: list[int]
) -> None:
    features, even_beats = blank(9.0), straight(0.5, 0.0, 9.0)
    found = _candidates(features, even_beats, Lines(shown, cut, 4), Constraints(120))
    assert sorted({span.beats for span in found}, reverse=True) == kept


def test_bars_that_would_fit_only_before_the_earliest_start_are_not_waited_for() -> None:
    features, wanted = blank(5.0), Constraints(120, min_start=2.9)
    found = _candidates(features, straight(0.5, 0.0, 5.0), Lines(4, 8, 4), wanted)
    assert [(span.start, span.beats) for span in found] == [(3.0, 4)]


def test_a_bar_of_a_hypothesis_is_told_in_halves_of_a_beat() -> None:
    bars = BarEstimate(straight(0.5, 0.0, 8.0), *[DownbeatHypothesis(0.0, 2.01, 1.0, 1.0)] * 2, 1.0)
    told = {
        bar: bars.beats_of(DownbeatHypothesis(0.0, bar, 1.0, 1.0)) for bar in (2.01, 0.76, 1.24, 4.0, 0.24)
    }
    assert told == {2.01: 4.0, 0.76: 1.5, 1.24: 2.5, 4.0: 8.0, 0.24: 0.5}


def test_music_as_clear_as_noise_can_be_at_most_is_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = band(even(120, 0.0, 4.0), 4, 4.0, 8_000)
    pulse = straight(0.5, 0.0, 4.0)
    for clarity, heard in ((4.2, False), (4.3, True)):
        monkeypatch.setattr("looper.beats.grid.find_pulse", lambda *_, clarity=clarity: (pulse, clarity))
        grid = fit_grid(samples, 8_000, 118)
        assert (grid.bpm == pytest.approx(120)) == heard and (grid.confidence > 0) == heard
        assert grid.clarity == clarity


def test_bars_that_drift_begin_on_the_known_line_wherever_the_pulse_counts_from() -> None:
    period = 0.5 * (1 + 0.015 * np.linspace(-0.5, 0.5, 60))
    beats = 0.23 + np.r_[0.0, np.cumsum(period)]
    clip = band(beats, 4, 26.0, 8_000)
    for known in (beats[8], beats[33]):
        grid = fit_grid(clip, 8_000, 120, downbeat=float(known) + 0.01)
        assert grid.drift > 0.004
        assert np.abs(grid.downbeat_times - known).min() < 0.012
        place = np.searchsorted(beats, grid.downbeat_times[2:-2] + 0.1) - 1
        assert np.unique(np.diff(place)).tolist() == [4]


def test_a_grid_says_nothing_of_level_drift_and_clarity_until_they_are_measured() -> None:
    plain = BeatGrid(120.0, 4, np.zeros(0), np.zeros(0), 0.0, 2.0, 1.0, 0.5, ())
    assert (plain.level, plain.drift, plain.clarity, plain.tempo_map) == (1.0, 0.0, 0.0, None)
