"""Beats to seconds and back, and a pulse that drifts followed through a recording."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.beats.tempo_map import TempoMap, follow, straight, straighten
from testkit.clicks import clicks


@given(st.lists(st.floats(0.2, 2.0), min_size=1, max_size=20), st.floats(-5, 5), st.floats(-40, 60))
def test_a_map_goes_there_and_back_also_beyond_its_knots(gaps, first, beat):
    tempo_map = TempoMap(np.arange(len(gaps) + 1.0), first + np.r_[0.0, np.cumsum(gaps)])
    assert float(tempo_map.position(tempo_map.time(np.array(beat)))) == pytest.approx(beat, abs=1e-6)
    assert tempo_map.period == pytest.approx(np.mean(gaps))
    assert tempo_map.drift == pytest.approx(max(gaps) / min(gaps) - 1)


def test_beyond_its_knots_a_map_keeps_the_tempo_of_its_ends():
    tempo_map = TempoMap(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.5]))
    assert tempo_map.time(np.array([-2.0, 4.0])).tolist() == [-1.0, 3.5]
    assert tempo_map.position(np.array([0.0, 3.0])).tolist() == [-1.0, 3.0]


def test_shifting_moves_the_beat_that_counts_as_nought():
    moved = straight(0.5, 0.2, 10.0).shifted(3)
    assert float(moved.time(np.array(0.0))) == pytest.approx(1.7)
    assert float(moved.position(np.array(0.2))) == pytest.approx(-3)


@pytest.mark.parametrize("duration", [0.1, 10.0])
def test_a_straight_map_has_its_period_and_phase_whatever_the_length(duration):
    tempo_map = straight(0.6, 0.25, duration)
    assert (tempo_map.period, tempo_map.drift) == (pytest.approx(0.6), pytest.approx(0, abs=1e-12))
    assert float(tempo_map.time(np.array(2.0))) == pytest.approx(1.45)


def drifting(seconds: float, share: float) -> np.ndarray:
    """Beats around 120 BPM whose tempo rises by `share` over the time."""
    times, now = [], 0.3
    while now < seconds - 0.2:
        times.append(now)
        now += 0.5 / (1 + share * now / seconds)
    return np.array(times)


def followed(features, beats):
    middle, period = float(beats[len(beats) // 2]), 0.5 / 1.015
    return follow(features, period, middle % period, middle)


def test_a_drift_is_followed_to_a_few_milliseconds_and_its_size_is_told():
    beats = drifting(30.0, 0.03)
    tempo_map = followed(clicks(beats, 30.0), beats)
    assert len(tempo_map.times) > 2 and 0.015 < tempo_map.drift < 0.06
    place = tempo_map.position(beats)
    assert np.abs(place - np.round(place)).max() * 0.5 < 0.012
    assert (np.diff(np.round(place)) == 1).all()


@pytest.mark.parametrize("seconds", [10.0, 40.0])
def test_a_steady_tempo_stays_a_straight_line(seconds):
    tempo_map = follow(clicks(np.arange(0.3, seconds - 0.2, 0.5), seconds), 0.5, 0.3, seconds / 2)
    assert len(tempo_map.times) == 2
    assert tempo_map.period == pytest.approx(0.5, rel=1e-3)


def test_straightened_features_have_their_onsets_evenly():
    beats = drifting(30.0, 0.03)
    features = clicks(beats, 30.0)
    tempo_map = followed(features, beats)
    even = straighten(features, tempo_map)
    place = even.peak_times / tempo_map.period
    off = place - np.round(place - np.median(place % 1)) - np.median(place % 1)
    assert np.abs(off).max() * tempo_map.period < 0.02
    assert even.duration == pytest.approx(float(tempo_map.even_time(np.array(30.0))))
    assert even.onset.shape[-1] == pytest.approx(even.duration * even.rate, abs=2)
