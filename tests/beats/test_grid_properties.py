"""What must hold for any tempo, shift, gain and rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.beats.grid import analyse, fit_grid
from testkit.properties import examples

RATE = 16_000
SLOW = examples(15)


def click_track(bpm: float, first: float, seconds: float, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    """Clicks at exact times, between samples too; every fourth is louder and lower."""
    beats = np.arange(first, seconds - 0.05, 60 / bpm)
    out = np.zeros(int(seconds * rate))
    for i, time in enumerate(beats):
        start = int(np.ceil(time * rate))
        t = np.arange(start, min(len(out), start + int(0.03 * rate))) / rate - time
        gain, pitch = (1.5, 150) if i % 4 == 0 else (0.5, 1200)
        out[start : start + len(t)] += gain * np.exp(-t / 0.006) * np.sin(2 * np.pi * pitch * t)
    return 0.5 * out, beats


def distance(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.max([np.abs(true - t).min() for t in found]))


@pytest.mark.slow
@SLOW
@given(bpm=st.floats(40, 300), first=st.floats(0.0, 1.0))
def test_a_click_track_at_any_tempo_is_found(bpm: float, first: float) -> None:
    seconds = max(8.0, 12 * 60 / bpm)
    samples, beats = click_track(bpm, first, seconds)
    grid = analyse(samples, RATE, bpm)
    assert abs(grid.bpm / bpm - 1) < 5e-4
    inside = grid.beat_times[(grid.beat_times > first - 0.01) & (grid.beat_times < beats[-1] + 0.01)]
    assert np.median([np.abs(beats - t).min() for t in inside]) < 0.002


@pytest.mark.slow
@SLOW
@given(bpm=st.floats(60, 200), off=st.floats(-0.055, 0.055))
def test_the_asked_tempo_may_be_off(bpm: float, off: float) -> None:
    samples, _ = click_track(bpm, 0.1, 9.0)
    grid = analyse(samples, RATE, float(np.clip(bpm * (1 + off), 40, 300)))
    assert abs(grid.bpm / bpm - 1) < 5e-4


@pytest.mark.slow
@SLOW
@given(bpm=st.floats(70, 180), shift=st.floats(0.0, 2.0))
def test_shifting_the_audio_shifts_the_beats(bpm: float, shift: float) -> None:
    samples, _ = click_track(bpm, 0.3, 8.0)
    pad = int(shift * RATE)
    before = analyse(samples, RATE, bpm)
    after = analyse(np.r_[np.zeros(pad), samples], RATE, bpm)
    moved = before.beat_times + pad / RATE
    period = 60 / bpm
    gap = (after.beat_times[len(after.beat_times) // 2] - moved[0] + period / 2) % period - period / 2
    assert abs(gap) < 0.003
    assert abs(after.bpm / before.bpm - 1) < 5e-4


@pytest.mark.slow
@SLOW
@given(gain=st.floats(1e-3, 1e3), flip=st.booleans(), bpm=st.floats(70, 180))
def test_gain_and_polarity_change_nothing(gain: float, flip: bool, bpm: float) -> None:
    samples, _ = click_track(bpm, 0.2, 6.0)
    plain = analyse(samples, RATE, bpm)
    other = analyse(samples * gain * (-1 if flip else 1), RATE, bpm)
    np.testing.assert_allclose(other.beat_times, plain.beat_times, atol=1e-4)
    np.testing.assert_allclose(other.downbeat_times, plain.downbeat_times, atol=1e-4)
    # of bars that repeat exactly, either may begin the loop
    assert np.abs(plain.downbeat_times - other.loop_start).min() < 1e-4
    assert other.beats == plain.beats
    assert abs(other.confidence - plain.confidence) < 0.02


@pytest.mark.slow
@SLOW
@given(ratio=st.floats(0.75, 1.4))
def test_playing_faster_scales_the_tempo(ratio: float) -> None:
    samples, beats = click_track(110, 0.25, 8.0)
    grid = analyse(samples, round(RATE * ratio), 110 * ratio)
    exact = round(RATE * ratio) / RATE
    assert abs(grid.bpm / (110 * exact) - 1) < 5e-4
    assert distance(grid.beat_times[1:-1], np.r_[beats[0] - 60 / 110, beats] / exact) < 0.003


@SLOW
@given(
    seconds=st.floats(0.4, 6.0),
    bpm=st.floats(150, 300),
    metre=st.integers(1, 9),
    limit=st.one_of(st.none(), st.floats(0.1, 10.0)),
    seed=st.integers(0, 2**20),
    density=st.floats(0.0, 1.0),
)
def test_any_audio_gives_a_loop_inside_it(
    seconds: float, bpm: float, metre: int, limit: float | None, seed: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.1, int(seconds * RATE) + 1) * (rng.random(int(seconds * RATE) + 1) < density**4)
    grid = fit_grid(samples, RATE, bpm, metre, max_seconds=limit)
    assert 0 <= grid.loop_start < grid.loop_end <= len(samples) / RATE + 1e-9
    assert 0 <= grid.confidence <= 1
    assert np.isfinite(grid.beat_times).all()
    if limit is not None and grid.beats > 1:
        assert grid.beats * 60 / bpm <= limit + 1e-9
