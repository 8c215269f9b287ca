"""Cut, stretch, level: checked against clocks, known attacks, pyloudnorm."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyloudnorm import Meter
from scipy.interpolate import PchipInterpolator
from scipy.signal import resample_poly

import looper
from looper.beats.grid import BeatGrid
from looper.beats.spans import Span
from looper.length import loop_beats
from looper.loops import loudness
from looper.loops.clicks import CLICK
from looper.loops.cut import cut
from looper.loops.loop import loop_length
from looper.loops.matching import cross_clicks, finish, join, level
from looper.loops.stretch import in_tempo, straighten
from testkit.fakes import drum_track
from testkit.properties import examples

RATE = 32_000


def grid_of(start, end, beats, beats_per_bar=4, beat_times=()):
    span = (Span(start, end, beats, 1.0),)
    bpm = 60 * beats / (end - start)
    times = np.asarray(beat_times, float)
    return BeatGrid(
        bpm, beats_per_bar, times, np.array([start]), start, end, beats / beats_per_bar, 1.0, span
    )


def hits(times, seconds, seed=0):
    """Sharp noise bursts at known seconds, nothing between them."""
    out = np.zeros(round(seconds * RATE), np.float32)
    burst = np.random.default_rng(seed).standard_normal(2400) * np.exp(-np.arange(2400) / 400) * 0.3
    for time in times:
        at = round(time * RATE)
        if 0 <= at < len(out) - len(burst):
            out[at : at + len(burst)] += burst
    return out


def chord(seconds, frequencies=(220.0, 277.2, 329.6), seed=0):
    """A steady chord of random phases: nothing hides a click in it."""
    t = np.arange(round(seconds * RATE)) / RATE
    phases = np.random.default_rng(seed).uniform(0, 6.28, len(frequencies))
    voices = [
        np.sin(2 * np.pi * f * t + p) / k for k, (f, p) in enumerate(zip(frequencies, phases, strict=True), 1)
    ]
    return 0.15 * sum(voices).astype(np.float32)


def attacks(samples):
    """First samples over a third of full level after 40 ms of less."""
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    return loud[np.r_[True, np.diff(loud) > 0.04 * RATE]]


@pytest.mark.parametrize(
    ("beats", "bpm", "rate", "samples"),
    [
        (16, 120, 32000, 256000),
        (16, 41.7, 32000, 736691),
        (12, 299.9, 44100, 105875),
        (8, 127.003, 32000, 120942),
    ],
)
def test_loop_length_is_what_a_pocket_calculator_says(beats, bpm, rate, samples):
    assert loop_length(beats, bpm, rate) == samples


@given(st.integers(1, 256), st.floats(40, 300), st.sampled_from([16000, 32000, 44100, 48000]))
@examples(200)
def test_loop_length_is_within_half_a_sample_of_the_exact_fraction(beats, bpm, rate):
    exact = Fraction(beats) * 60 / Fraction(bpm) * rate
    assert abs(loop_length(beats, bpm, rate) - exact) <= Fraction(1, 2) + Fraction(1, 1000)


@pytest.mark.parametrize(
    ("bpm", "seconds", "metre", "beats"),
    [
        (120, 8, 4, 16),  # exactly four bars
        (119.9, 8, 4, 8),  # a hair too slow for four
        (140, 8, 4, 16),
        (174, 20, 4, 32),
        (90, 8, 3, 12),
        (300, 20, 4, 64),
        (40, 8, 4, 4),
        (40, 5.9, 4, 2),  # no bar fits
        (40, 2, 4, 1),
        (60, 7, 7, 7),
        (120, 2, 16, 2),
    ],
)
def test_the_longest_power_of_two_bars_that_fits_else_two_beats_or_one(bpm, seconds, metre, beats):
    assert loop_beats(bpm, seconds, metre) == beats


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, Fraction, int])
@pytest.mark.parametrize("bpm", [120, 127])
def test_a_tempo_of_any_numeric_type_gives_as_many_samples(kind, bpm):
    assert loop_length(256, kind(bpm), 48_000) == round(256 * 60 * 48_000 / bpm)
    assert len(cut(chord(2), RATE, kind(bpm), grid=grid_of(0.0, 2.0, 4)).samples) == round(
        4 * 60 / bpm * RATE
    )


@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.longdouble])
def test_samples_of_any_floating_point_type_are_cut(dtype):
    loop = cut(chord(2).astype(dtype), RATE, 120, grid=grid_of(0.0, 2.0, 4))
    whole = cut(chord(2), RATE, 120, grid=grid_of(0.0, 2.0, 4))
    np.testing.assert_allclose(loop.samples, whole.samples, atol=2e-3)


def test_no_beat_fitting_names_the_remedy():
    with pytest.raises(ValueError, match=r"raise max_duration to 2 or the bpm to 60"):
        loop_beats(40, 1)


SHAPES = [(4, 0, "float32"), (3, 1, "float64"), (5, 2, "float32")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bpm", "deviation", "metre", "channels", "dtype"),
    [
        (bpm, deviation, *SHAPES[(i + j) % 3])
        for i, bpm in enumerate([41.7, 93.5, 127.003, 299.9])
        for j, deviation in enumerate([0.95, 1.0, 1.0004, 1.06])
    ],
)
def test_cut_has_the_exact_sample_count_and_the_shape_of_its_input(bpm, metre, channels, dtype, deviation):
    seconds = metre * 60 / bpm * deviation
    mono = chord(seconds + 1.0).astype(dtype)
    samples = np.stack([mono] * channels, axis=1) if channels else mono
    loop = cut(samples, RATE, bpm, metre, grid=grid_of(0.3, 0.3 + seconds, metre, metre))
    assert loop.samples.shape == (round(metre * 60 / bpm * RATE), *samples.shape[1:])
    assert loop.samples.dtype == np.float32
    assert np.isfinite(loop.samples).all()
    assert (loop.bpm, loop.bars) == (bpm, 1)


@pytest.mark.slow
@pytest.mark.parametrize("played", [113.0, 118.5, 120.0, 127.0])
@pytest.mark.parametrize("first", [0.0, 0.004, 0.3, 1.7])
def test_attacks_land_on_the_asked_beats_and_the_first_at_the_front(played, first):
    beat = 60 / played
    times = first + beat * np.arange(-4, 24)
    samples = hits(times, first + 18 * beat)
    loop = cut(samples, RATE, 120, grid=grid_of(first, first + 16 * beat, 16))
    found = attacks(loop.samples)
    off = found - np.arange(16) * RATE * 60 / 120
    assert len(found) == 16
    assert 0 <= off[0] <= 0.009 * RATE
    assert np.abs(off - np.median(off)).max() <= 0.0012 * RATE


@pytest.mark.slow
def test_stretching_moves_attacks_by_less_than_a_third_of_a_millisecond_in_the_median():
    errors = []
    for played in (113, 115, 117, 119, 121, 123, 125, 127):
        beat = 60 / played
        samples = hits(0.3 + beat * np.arange(18), 0.3 + 18 * beat, seed=played) + 0.1 * chord(
            0.3 + 18 * beat
        )
        loop = cut(samples, RATE, 120, grid=grid_of(0.3, 0.3 + 16 * beat, 16))
        off = attacks(loop.samples) - np.arange(16) * RATE / 2
        errors += list(np.abs(off - np.median(off)) / RATE * 1000)
    assert np.median(errors) <= 0.3


def test_within_a_thousandth_of_the_tempo_samples_are_left_as_they_are():
    samples = chord(6) + hits(np.arange(0.25, 6, 0.25), 6)
    loop = cut(samples, RATE, 120.05, grid=grid_of(0.5, 4.5, 8))
    first = round(0.5 * RATE) - round(loop.seam.preroll_ms * RATE / 1000)
    middle = slice(RATE // 10, len(loop.samples) - RATE // 10)
    assert np.array_equal(loop.samples[middle], samples[first : first + len(loop.samples)][middle])


def test_wandering_beats_are_straightened():
    beat = 0.5
    even = 0.4 + beat * np.arange(17)
    played = even + 0.012 * np.sin(np.arange(17) / 16 * 2 * np.pi)
    samples = hits(played, 10)
    loop = cut(samples, RATE, 118, grid=grid_of(played[0], played[-1], 16, beat_times=played))
    off = attacks(loop.samples) - np.arange(16) * RATE * 60 / 118
    assert np.abs(off - np.median(off)).max() <= 0.0012 * RATE


def test_a_recording_that_starts_on_its_downbeat_keeps_its_first_attack_and_wraps_cleanly():
    beat = 60 / 124
    samples = hits(beat * np.arange(40), 12) + chord(12)
    loop = cut(samples, RATE, 122, grid=grid_of(0.0, 16 * beat, 16))
    front, later = (loop.samples[k * RATE * 60 // 122 :][: RATE // 50] for k in (0, 4))
    assert loop.seam.click_ratio < CLICK
    assert (front**2).sum() > 0.5 * (later**2).sum()


def test_nothing_around_the_loop_still_wraps_cleanly():
    samples = chord(2, (220.3, 331.7))
    loop = cut(samples, RATE, 120, grid=grid_of(0.0, 2.0, 4))
    assert len(loop.samples) == 2 * RATE
    assert loop.seam.click_ratio < CLICK


@pytest.mark.parametrize("tempo", [120.0, 123.0])
@pytest.mark.parametrize(("start", "end"), [(-0.02, 1.98), (0.02, 2.02)])
def test_a_beat_just_outside_the_recording_is_forgiven(tempo, start, end):
    loop = cut(chord(2), RATE, tempo, grid=grid_of(start, end, 4))
    assert len(loop.samples) == round(4 * 60 / tempo * RATE)
    assert loop.seam.click_ratio < CLICK


def test_silence_stays_silent():
    loop = finish([cut(np.zeros(5 * RATE, np.float32), RATE, 120, grid=grid_of(0.2, 4.2, 8))])[0]
    assert len(loop.samples) == 4 * RATE
    assert not loop.samples.any()


def test_a_grid_is_found_when_none_is_given():
    samples = hits(np.arange(0.1, 12, 60 / 121), 12)
    loop = looper.cut(samples, RATE, 120, max_seconds=8)
    found = attacks(loop.samples)
    assert len(loop.samples) in {round(beats * 0.5 * RATE) for beats in (4, 8, 16)}
    assert np.abs(np.diff(found) - RATE / 2).max() <= 0.003 * RATE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.zeros(0, np.float32)}, "samples is empty"),
        ({"samples": np.zeros((2, 3, 4), np.float32)}, "time, channels"),
        ({"samples": np.zeros((2, 64000), np.float32)}, "at most 8 channels, which come last"),
        ({"samples": np.zeros(64000, np.int16)}, "floating point"),
        ({"samples": np.full(64000, np.nan, np.float32)}, "NaN"),
        ({"bpm": 0}, "bpm must be"),
        ({"bpm": float("nan")}, "bpm must be"),
        ({"sample_rate": 0}, "sample_rate must be"),
        ({"bpm": 200.0}, "half or double"),
        ({"grid": grid_of(0.5, 3.0, 4)}, "outside the recording"),
        ({"grid": grid_of(-0.2, 1.8, 4)}, "outside the recording"),
        ({"beats_per_bar": 3}, "bars of 4 beats, got beats_per_bar=3"),
    ],
)
def test_unusable_input_is_refused_in_the_users_words(change, message):
    wish = {"samples": chord(2), "sample_rate": RATE, "bpm": 120.0, "grid": grid_of(0.0, 2.0, 4), **change}
    with pytest.raises(ValueError, match=message):
        cut(**wish)


def loops_of(count, gains=None):
    """Two-second loops of different chords and levels, cut from the middle of nowhere."""
    gains = gains if gains is not None else [1.0] * count
    made = []
    for k in range(count):
        samples = chord(4, (200 + 37.3 * k, 310.7 + 11.1 * k, 451.3), seed=k) + hits(
            np.arange(0.5, 4, 0.5), 4, seed=k
        )
        made.append(cut(gains[k] * samples, RATE, 120, grid=grid_of(0.5, 2.5, 4)))
    return made


@pytest.mark.slow
def test_loops_of_a_set_are_equally_loud_under_the_ceiling_and_without_dc():
    loops = loops_of(4, [0.1, 1.0, 0.4, 0.02])
    loops[2] = replace(loops[2], samples=loops[2].samples + np.float32(0.1))
    spiky = loops[1].samples.copy()
    spiky[5000:5012] = np.hanning(12)
    loops[1] = replace(loops[1], samples=spiky)
    done = finish(loops)
    heard = [Meter(RATE).integrated_loudness(loop.samples.astype(float)) for loop in done]
    assert max(heard) - min(heard) <= 0.5
    for loop in done:
        repeated = np.tile(loop.samples, 3).astype(float)
        assert 20 * np.log10(np.abs(resample_poly(repeated, 8, 1)[8 * RATE : -8 * RATE]).max()) < -1
        assert abs(loop.samples.mean(dtype=float)) < 1e-4


def test_loops_shorter_than_a_gating_block_are_levelled_too():
    short = [cut(g * chord(1), RATE, 240, grid=grid_of(0.3, 0.55, 1)) for g in (0.1, 0.9)]
    rms = [float(np.sqrt((loop.samples**2).mean())) for loop in level(short)]
    assert rms[0] == pytest.approx(rms[1], rel=0.06)


def test_a_loop_does_not_depend_on_how_many_follow_it():
    loops = loops_of(3, [0.5, 0.2, 2.0])
    few, many = finish(loops[:2]), finish(loops)
    assert np.array_equal(few[0].samples, many[0].samples)
    assert np.array_equal(few[1].samples, many[1].samples)


def test_every_loop_runs_into_every_other_and_into_itself():
    chords = [chord(4, (200.3 + 37.3 * k, 310.7 + 11.1 * k, 451.3), seed=k) for k in range(4)]
    noise = 0.0005 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    loops = level([cut(samples + noise, RATE, 120, grid=grid_of(0.5, 2.5, 4)) for samples in chords])
    apart, together = cross_clicks(loops), cross_clicks(join(loops))
    assert apart.shape == (4, 4)
    assert apart.max() > CLICK
    assert together.max() < CLICK


def test_loops_of_different_lengths_cannot_be_joined():
    loops = loops_of(2)
    with pytest.raises(ValueError, match="agree in length"):
        join([loops[0], replace(loops[1], samples=loops[1].samples[:-1])])


def test_nothing_in_nothing_out():
    assert finish([]) == []


def test_the_same_input_gives_the_same_samples():
    assert np.array_equal(finish(loops_of(2))[1].samples, finish(loops_of(2))[1].samples)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_loop_is_a_pydub_segment_of_as_many_rounds(times, channels):
    from pydub import AudioSegment

    t = np.arange(round(240 / 127.003 * 32_000)) / 32_000
    wave = 0.9 * np.sin(2 * np.pi * 440 * t)
    samples = wave.astype(np.float32) if channels == 1 else np.stack([wave, -wave], 1).astype(np.float32)
    loop = replace(cut(np.tile(wave, 3).astype(np.float32), 32_000, 127.003), samples=samples)
    segment = loop.segment(times)
    assert isinstance(segment, AudioSegment)
    assert (segment.frame_rate, segment.channels, segment.frame_count()) == (32_000, channels, times * len(t))
    heard = np.array(segment.get_array_of_samples(), float).reshape(-1, channels) / 32768
    expected = np.tile(samples.reshape(len(t), channels), (times, 1))
    assert np.abs(heard - expected).max() <= 1 / 65536 + 1e-7
    assert (segment * 2 - 6).duration_seconds == pytest.approx(2 * times * len(t) / 32_000)


def test_a_segment_too_loud_for_16_bit_is_clipped_not_wrapped():
    from looper.loops.loop import audio_segment

    loud = audio_segment(np.array([1.5, -1.5, 1.0]), 8000).get_array_of_samples()
    assert loud.tolist() == [32767, -32768, 32767]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sample_rate": "44100"}, "sample_rate"),
        ({"sample_rate": None}, "sample_rate"),
        ({"sample_rate": 32000.5}, "sample_rate"),
        ({"bpm": "120"}, "bpm"),
        ({"bpm": None}, "bpm"),
        ({"beats_per_bar": None}, "beats_per_bar"),
    ],
)
def test_what_is_no_number_is_refused_in_words(wrong, message):
    with pytest.raises(ValueError, match=message):
        cut(np.zeros(64_000, np.float32), **{"sample_rate": 32_000, "bpm": 120, **wrong})


@pytest.mark.slow
@pytest.mark.parametrize("rate", [32_000.0, np.int32(32_000), np.float32(32_000)])
def test_a_whole_sample_rate_of_any_type_is_one(rate):
    samples = hits(np.arange(16) / 2, 8)
    assert np.array_equal(cut(samples, rate, 120).samples, cut(samples, 32_000, 120).samples)


def test_a_bound_beyond_all_numbers_is_none():
    samples = hits(np.arange(16) / 2, 8)
    assert cut(samples, RATE, 120, max_seconds=10**400).beats == cut(samples, RATE, 120).beats


@pytest.mark.parametrize("function", [cut, looper.analyse])
def test_samples_beyond_all_sound_are_refused_before_they_overflow(function):
    with pytest.raises(ValueError, match=r"within -1\.\.1, or somewhere near, got .*e\+30\d"):
        function(hits([0.5, 1], 4).astype(float) * 1e308, RATE, 120)


def test_a_limited_loop_has_no_dc():
    rng = np.random.default_rng(0)
    decay = np.exp(-(np.arange(32_000) % 4000) / 300)
    lopsided = np.abs(rng.standard_normal(32_000)) * decay  # peaks on one side only
    (loop,) = loudness.match([lopsided], 32_000)
    limited = loudness.limit(lopsided - lopsided.mean(), 32_000)
    assert abs(limited.mean()) > 1e-3, "the limiter leans to one side"
    assert abs(loop.mean()) < 1e-6
    assert loudness.true_peak(loop) < 10 ** (-1 / 20)


def test_a_joined_loop_keeps_its_own_music_away_from_the_wrap():
    loops = level(
        [cut(chord(4, (f, 451.3)), RATE, 120, grid=grid_of(0.5, 2.5, 4)) for f in (200.3, 310.7, 277.1)]
    )
    for before, after in zip(loops, join(loops), strict=True):
        inner = slice(RATE // 4, -RATE // 4)
        np.testing.assert_array_equal(after.samples[inner], before.samples[inner])


@pytest.mark.parametrize("played", [0.97, 1.03])
def test_a_recording_that_ends_with_its_loop_gives_the_seam_no_silence(played):
    """What the stretch may add beyond the recording's end is not music."""
    n = 2 * RATE
    end = 0.5 + played * n / RATE
    samples = chord(end)[:, None]
    body, origin = in_tempo(samples, RATE, grid_of(0.5, end, 4), n)
    assert abs(len(body) - origin - n) <= 2
    longer, origin = in_tempo(chord(end + 3)[:, None], RATE, grid_of(0.5, end, 4), n)
    assert len(longer) - origin - n > 0.2 * RATE
    for found in (body, longer):
        assert np.abs(found[-RATE // 100 :]).max() > 0.05


def test_straightening_keeps_the_top_octave():
    t = np.arange(3 * RATE) / RATE
    beats = np.array([0.5, 1.004, 1.497, 2.003, 2.5])
    moved = t.copy()
    inside = (t >= beats[0]) & (t <= beats[-1])
    moved[inside] = PchipInterpolator(np.linspace(0.5, 2.5, 5), beats)(t[inside])
    for frequency in (3000, 9000, 12_000):
        tone = np.sin(2 * np.pi * frequency * t).astype(np.float32)
        straight = straighten(tone[:, None], RATE, beats)[:, 0]
        error = straight - np.sin(2 * np.pi * frequency * moved)
        assert np.abs(error[RATE // 4 : -RATE // 4]).max() < 0.0025


@pytest.mark.parametrize("times", [0, -3, 1.5, "2"])
def test_no_number_of_rounds_is_refused(times):
    loop = cut(drum_track(120, 8), 32_000, 120)
    with pytest.raises(ValueError, match="times must be"):
        loop.segment(times)
